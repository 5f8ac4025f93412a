//! Memory of a process: what it holds now, and the most it ever held.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Most physical memory this process has held at once, in bytes; `None` where the system does not
/// tell (it does on Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    peak_memory_bytes_of(std::process::id())
}

/// As [`peak_memory_bytes`] for another process of this user, for example the engine's.
pub fn peak_memory_bytes_of(pid: u32) -> Option<u64> {
    if cfg!(target_os = "linux") {
        parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM:")
    } else {
        None
    }
}

/// Physical memory this process holds now, in bytes; `None` where the system does not tell.
pub fn resident_memory_bytes() -> Option<u64> {
    resident_memory_bytes_of(std::process::id())
}

/// As [`resident_memory_bytes`] for another process of this user, for example the engine's.
pub fn resident_memory_bytes_of(pid: u32) -> Option<u64> {
    if cfg!(target_os = "linux") {
        return parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:");
    }
    let (mut system, pid) = (System::new(), Pid::from_u32(pid));
    let memory = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, memory);
    system.process(pid).map(sysinfo::Process::memory).filter(|bytes| *bytes > 0)
}

/// A line like `VmHWM:   123 kB` of a status file, in bytes.
fn parse(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read() {
        let status = "Name:\tneurino\nVmPeak:\t  900 kB\nVmHWM:\t  814532 kB\nVmRSS:\t 4 kB\n";
        let peak = |status| parse(status, "VmHWM:");
        assert_eq!(peak(status), Some(814_532 * 1024));
        assert_eq!(parse(status, "VmRSS:"), Some(4 * 1024));
        assert_eq!(peak("Name:\tkthreadd\n"), None);
        assert_eq!(peak("VmHWM:\t many kB\n"), None);
        assert_eq!(peak("VmHWM:\t 99999999999999999 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn it_grows_with_what_is_touched() {
        let touched = vec![1_u8; 64 << 20];
        assert_eq!(std::hint::black_box(&touched).len(), 64 << 20);
        assert!(peak_memory_bytes() > Some(64 << 20));
        let with = resident_memory_bytes().expect("this system tells");
        drop(touched);
        let without = resident_memory_bytes().expect("this system tells");
        assert!(with > without + (60 << 20), "{with} {without}");
        assert_eq!(resident_memory_bytes_of(u32::MAX), None);
        assert_eq!(peak_memory_bytes_of(u32::MAX), None);
    }
}
