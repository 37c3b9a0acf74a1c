//! What a process and the machine use, from /proc.

use std::fs;
use std::io;

use serde::Serialize;

use crate::failure::Failure;

/// What a process has used until now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Nanoseconds of processor time of all its threads, user and system, of ended threads too.
    pub(crate) cpu: u64,
    /// The system's part of it.
    pub(crate) cpu_system: u64,
    /// Resident bytes.
    pub(crate) resident: u64,
}

/// Memory that the kernel holds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct KernelMemory {
    /// Bytes in TCP's buffers.
    pub(crate) tcp: u64,
    /// Bytes of kernel objects (sockets, files, epoll entries and everything else).
    pub(crate) slab: u64,
    /// TCP sockets in use.
    pub(crate) sockets: u64,
}

/// Reads a process, if one is named.
pub(crate) fn usage(pid: Option<u32>) -> Result<Option<Usage>, Failure> {
    pid.map(|pid| read(pid).map_err(|source| Failure::Process { pid, source })).transpose()
}

fn read(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (user, system) = ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = kilobytes(&status, "VmRSS:").ok_or(io::ErrorKind::InvalidData)?;
    // Safety: takes no pointer.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    let tick = crate::clock::SECOND / per_second;
    let cpu = exact_cpu(pid).unwrap_or((user + system) * tick);
    Ok(Usage { cpu, cpu_system: system * tick, resident })
}

/// The same sum as in /proc, but by the nanosecond and not by the tick.
fn exact_cpu(pid: u32) -> Option<u64> {
    let mut clock: libc::clockid_t = 0;
    // Safety: `clock` is a valid place for the answer.
    let answer = unsafe { libc::clock_getcpuclockid(libc::pid_t::try_from(pid).ok()?, &raw mut clock) };
    (answer == 0).then(|| crate::clock::read(clock)).filter(|&cpu| cpu > 0)
}

/// User and system ticks: fields 14 and 15. The second field is a name in brackets that may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The bytes of a line `name  N kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|count| count * 1024)
}

/// Reads the kernel's own memory; zeros where it does not say.
pub(crate) fn kernel_memory() -> KernelMemory {
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let tcp = |name| {
        let line = sockets.lines().find(|line| line.starts_with("TCP:"))?;
        let mut words = line.split_ascii_whitespace().skip_while(|&word| word != name);
        words.nth(1)?.parse::<u64>().ok()
    };
    // Safety: takes no pointer.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    KernelMemory {
        tcp: tcp("mem").unwrap_or(0) * page,
        slab: kilobytes(&memory, "Slab:").unwrap_or(0),
        sockets: tcp("inuse").unwrap_or(0),
    }
}

/// How many processes wanted to run during the last minute, on average.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Lets this process have as many descriptors as the system permits, and checks that `wanted` fit.
pub(crate) fn raise_descriptor_limit(wanted: usize) -> Result<(), Failure> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // Safety: `limit` is a valid place for the answer, and lives through the second call.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    /// Bound: what this program opens beside its connections.
    const OTHERS: usize = 64;
    if (wanted + OTHERS) as u64 > limit.rlim_max {
        return Err(Failure::DescriptorLimit { wanted, limit: limit.rlim_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_brackets_and_spaces() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 55 66 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some((55, 66)));
        assert_eq!(ticks("7 (cut"), None);
    }

    #[test]
    fn own_usage_is_readable() {
        let usage = usage(Some(std::process::id())).unwrap().unwrap();
        assert!(usage.resident > 0);
    }
}
