//! What we tell the service manager that started us, if one did (sd_notify(3)).

use std::time::Duration;

use sd_notify::NotifyState;

/// The one above us. Silent where `NOTIFY_SOCKET` is not set.
#[derive(Debug)]
pub(super) struct Superior {
    /// How often it wants a sign of life; a third of what it waits for.
    pub(super) beat: Option<Duration>,
    listens: bool,
    /// The last `STATUS=`: it is told changes only.
    told: String,
}

impl Superior {
    pub(super) fn find() -> Self {
        let beat = sd_notify::watchdog_enabled().map(|patience| patience / 3);
        let listens = std::env::var_os("NOTIFY_SOCKET").is_some();
        Self { beat, listens, told: String::new() }
    }

    pub(super) fn listens(&self) -> bool {
        self.listens
    }

    pub(super) fn ready(&mut self, status: String) {
        tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.told = status;
    }

    pub(super) fn status(&mut self, status: String) {
        if status != self.told {
            tell(&[NotifyState::Status(&status)]);
            self.told = status;
        }
    }

    /// A reload begins; `ready` ends it (sd_notify(3), `RELOADING=1`).
    pub(super) fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    pub(super) fn alive(&self) {
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Nobody may be listening any more, and there is nobody else to tell that.
    let _unheard = sd_notify::notify(states);
}
