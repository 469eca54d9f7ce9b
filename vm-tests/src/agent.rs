//! The host's side of the port to the guest's agent (`guest/agent.py`): one request, one answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::Error;

/// How long a guest may say nothing. It ends tests that hang and decides nothing else.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// How long a script may take, by the guest's clock: one that hangs is ended while its machine can
/// still be asked why.
const SCRIPT_TAKES: Duration = PATIENCE.saturating_sub(Duration::from_secs(60));

/// How long a guest tries what is to succeed in the end, by its own clock.
pub const TRIES_FOR: Duration = Duration::from_secs(300);

/// What became of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Negative: the signal that ended it.
    pub code: i32,
    pub out: String,
    pub err: String,
}

#[derive(Debug)]
pub struct Agent {
    stream: BufReader<UnixStream>,
    lost: bool,
}

impl Agent {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream), lost: false }
    }

    /// Runs a Bash script to its end; code 124, as of timeout(1), if it has none.
    pub fn run(&mut self, script: &str) -> Result<Answer, Error> {
        self.ask("run", &SCRIPT_TAKES.as_secs().to_string(), script.as_bytes(), script)
    }

    /// Runs it again and again until it succeeds; the last answer if it never does, of one that
    /// hangs with code 124.
    pub fn wait(&mut self, script: &str) -> Result<Answer, Error> {
        self.ask("wait", &TRIES_FOR.as_secs().to_string(), script.as_bytes(), script)
    }

    /// Reads lines of what a Python program's `COMMAND` writes until the program's `holds` is true
    /// of one, in bytes: the output is that line, or the last if none is.
    pub fn judge(&mut self, program: &str) -> Result<Answer, Error> {
        self.ask("judge", &TRIES_FOR.as_secs().to_string(), program.as_bytes(), program)
    }

    /// Writes a file; the path has no spaces.
    pub fn put(&mut self, path: &str, content: &[u8]) -> Result<Answer, Error> {
        self.ask("put", path, content, &format!("writing {path}"))
    }

    fn ask(
        &mut self,
        verb: &str,
        argument: &str,
        data: &[u8],
        doing: &str,
    ) -> Result<Answer, Error> {
        let exchanged = match self.lost {
            false => self.exchange(verb, argument, data),
            true => Err(io::ErrorKind::NotConnected.into()),
        };
        // Whatever is read after half an answer is no answer.
        self.lost |= !matches!(exchanged, Ok(Ok(_)));
        exchanged.map_err(|error| {
            let doing = doing.to_owned();
            match error.kind() == io::ErrorKind::WouldBlock {
                true => Error::Silent { doing, after: PATIENCE },
                false => Error::Io { operation: "ask the guest for", object: doing, source: error },
            }
        })?
    }

    fn exchange(
        &mut self,
        verb: &str,
        argument: &str,
        data: &[u8],
    ) -> io::Result<Result<Answer, Error>> {
        let mut stream = self.stream.get_ref();
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{verb} {argument} {}\n", data.len()).as_bytes())?;
        stream.write_all(data)?;
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((code, out, err)) = lengths(&line) else {
            let doing = format!("{verb} {argument}");
            return Ok(Err(Error::Protocol { doing, said: line }));
        };
        Ok(Ok(Answer { code, out: self.text(out)?, err: self.text(err)? }))
    }

    fn text(&mut self, length: usize) -> io::Result<String> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// `0 12 0`
fn lengths(line: &str) -> Option<(i32, usize, usize)> {
    let mut words = line.split_whitespace();
    let (code, out, err) = (words.next()?, words.next()?, words.next()?);
    Some((code.parse().ok()?, out.parse().ok()?, err.parse().ok()?))
}
