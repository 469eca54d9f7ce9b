//! File operations on blocking threads, a limited number at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Semaphore;
use tokio_stream::Stream;
use tonic::Status;

/// How many file operations of a process run at once.
const AT_ONCE: usize = 16;

/// Runs file operations; clones share the limit.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Semaphore>);

impl Default for Disk {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Disk {
    /// Runs `work` on a blocking thread. Work that has begun is finished even if the caller goes
    /// away. UNAVAILABLE: the process is ending.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let ending = || Status::unavailable("the service is ending");
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| ending())?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| ending())
    }

    /// The items of `source`, each fetched when it is asked for: a slow reader holds no thread.
    /// The stream ends after the first error.
    pub fn stream<S, T>(&self, source: S) -> DiskStream<S, T>
    where
        S: Iterator<Item = Result<T, Status>> + Send + 'static,
        T: Send + 'static,
    {
        DiskStream { disk: self.clone(), next: Next::Idle(source) }
    }
}

type Fetching<S, T> =
    Pin<Box<dyn Future<Output = Result<(S, Option<Result<T, Status>>), Status>> + Send>>;

/// See [`Disk::stream`].
pub struct DiskStream<S, T> {
    disk: Disk,
    next: Next<S, T>,
}

enum Next<S, T> {
    Idle(S),
    Fetching(Fetching<S, T>),
    Ended,
}

impl<S, T> std::fmt::Debug for DiskStream<S, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStream").finish_non_exhaustive()
    }
}

impl<S: Unpin, T> Unpin for DiskStream<S, T> {}

impl<S, T> Stream for DiskStream<S, T>
where
    S: Iterator<Item = Result<T, Status>> + Send + Unpin + 'static,
    T: Send + 'static,
{
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut fetching = match std::mem::replace(&mut self.next, Next::Ended) {
            Next::Ended => return Poll::Ready(None),
            Next::Fetching(fetching) => fetching,
            Next::Idle(mut source) => {
                let disk = self.disk.clone();
                Box::pin(async move {
                    disk.run(move || {
                        let item = source.next();
                        (source, item)
                    })
                    .await
                })
            }
        };
        let Poll::Ready(fetched) = fetching.as_mut().poll(context) else {
            self.next = Next::Fetching(fetching);
            return Poll::Pending;
        };
        Poll::Ready(match fetched {
            Ok((source, Some(Ok(item)))) => {
                self.next = Next::Idle(source);
                Some(Ok(item))
            }
            Ok((_, Some(Err(status)))) | Err(status) => Some(Err(status)),
            Ok((_, None)) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_stream_yields_every_item_and_ends_after_an_error() {
        let items = vec![Ok(1), Ok(2), Err(Status::data_loss("gone")), Ok(3)];
        let seen: Vec<_> = Disk::default().stream(items.into_iter()).collect().await;
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[1].as_ref().unwrap(), &2);
        assert_eq!(seen[2].as_ref().unwrap_err().code(), tonic::Code::DataLoss);
    }

    #[tokio::test]
    async fn more_work_than_threads_is_all_done() {
        let disk = Disk::default();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..100_u32 {
            let disk = disk.clone();
            tasks.spawn(async move { disk.run(move || n).await.unwrap() });
        }
        assert_eq!(tasks.join_all().await.into_iter().sum::<u32>(), 4950);
    }
}
