//! A child process: lines in, lines out, an end that is never forgotten.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::Value;

use crate::wait::{PATIENCE, wait_until};

/// A running program whose standard output is read line by line. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Events that came while another was waited for.
    kept: VecDeque<Value>,
    errors: Arc<Mutex<String>>,
    errors_reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a program with piped input and output.
    pub fn start(mut command: Command) -> Process {
        let name = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let (sender, lines) = mpsc::channel();
        let output = child.stdout.take().expect("standard output is piped");
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let (kept, mut stream) = (Arc::clone(&errors), child.stderr.take().expect("standard error is piped"));
        let errors_reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                kept.lock().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        let input = child.stdin.take();
        Process {
            name,
            child,
            input,
            lines,
            kept: VecDeque::new(),
            errors,
            errors_reader: Some(errors_reader),
        }
    }

    /// Writes a line to its standard input.
    pub fn write_line(&mut self, line: &str) {
        let input = self.input.as_mut().expect("standard input is open");
        let written = input.write_all(line.as_bytes()).and_then(|()| input.write_all(b"\n"));
        written.unwrap_or_else(|error| self.fail(&format!("does not read: {error}")));
    }

    /// Closes its standard input, which tells our client programs to end.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// The next line of output. Panics if none comes in time.
    pub fn next_line(&mut self) -> String {
        self.try_line(Instant::now() + PATIENCE).unwrap_or_else(|| self.fail("said nothing more"))
    }

    /// The next line of output, or `None` when there will be none before the deadline.
    pub fn try_line(&mut self, deadline: Instant) -> Option<String> {
        self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// The next event of a client program that has one of the names. Others keep their turn; failures panic.
    pub fn next_event(&mut self, names: &[&str]) -> Value {
        loop {
            let wanted = |event: &Value| event["event"].as_str().is_some_and(|name| names.contains(&name));
            if let Some(event) = self.kept.iter().position(wanted).and_then(|at| self.kept.remove(at)) {
                return event;
            }
            let line = self.next_line();
            self.keep_event(&line);
        }
    }

    /// An event of that name that a client program has told already.
    pub fn arrived_event(&mut self, name: &str) -> Option<Value> {
        while let Ok(line) = self.lines.try_recv() {
            self.keep_event(&line);
        }
        let at = self.kept.iter().position(|event| event["event"] == name)?;
        self.kept.remove(at)
    }

    fn keep_event(&mut self, line: &str) {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{} said {line:?}: {error}", self.name));
        if event["event"] == "error" || event["event"] == "failed" {
            self.fail(line);
        }
        self.kept.push_back(event);
    }

    /// Waits for its end and returns how it ended.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait_until(&format!("{name} ends"), || self.child.try_wait().expect("a child can be waited for"))
    }

    /// Closes its input and expects that it ends well.
    pub fn finish(mut self) {
        self.close_input();
        let status = self.wait();
        if !status.success() {
            self.fail(&format!("ended with {status}"));
        }
    }

    /// What it wrote to standard error: all of it once it has ended.
    pub fn errors(&mut self) -> String {
        if let (Ok(Some(_)), Some(reader)) = (self.child.try_wait(), self.errors_reader.take()) {
            reader.join().expect("reading does not panic");
        }
        self.errors.lock().clone()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child can be killed");
        self.wait();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("process numbers are small");
        // Safety: `kill` touches no memory, and the child was not waited for, so that the number is still its.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "our own child can be signalled");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn fail(&mut self, what: &str) -> ! {
        let errors = self.errors();
        panic!("{} {what}; its errors:\n{errors}", self.name);
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Raises the limit of open files, of this process and so of the broker that it starts.
pub fn allow_open_files(count: usize) {
    let count = libc::rlim_t::try_from(count).expect("fits");
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // Safety: both calls touch only `limit`.
    let set = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_cur.max(count.min(limit.rlim_max));
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert!(set == 0 && limit.rlim_cur >= count, "{count} open files are not permitted here");
}
