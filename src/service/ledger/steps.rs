//! Long work on the file, in steps on blocking threads: it ends soon after its caller went away,
//! and does not delay the end of the process.

use super::error::LedgerError;
use crate::service::disk_io::Disk;

/// How many bytes of the file a step covers; a larger entry is one step.
pub const STEP: u64 = 512 << 10;

/// Whether there is another step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    More,
    Done,
}

/// Calls `step` until it is done, and returns the work.
pub async fn in_steps<W: Send + 'static>(
    disk: &Disk,
    mut work: W,
    step: fn(&mut W) -> Result<Progress, LedgerError>,
) -> Result<W, LedgerError> {
    loop {
        let stepped = disk.run(move || {
            let progress = step(&mut work);
            (work, progress)
        });
        let (back, progress) = stepped.await.map_err(|_| LedgerError::Ending)?;
        work = back;
        match progress? {
            Progress::More => {}
            Progress::Done => return Ok(work),
        }
    }
}
