//! Observers: exits, notify messages, health, ports, signals, logs and usage become events. Decides
//! nothing; knows nothing of effects.

pub mod clock;
pub mod exits;
pub mod health;
pub mod logs;
pub mod memory;
pub mod news;
pub mod notify;
pub mod notify_message;
pub mod orphans;
pub mod port;
mod retry;
pub mod signals;
pub mod starvation;
pub mod usage;
