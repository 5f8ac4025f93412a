//! Peak memory of a process.

/// Most physical memory this process has held at once, in bytes; `None` where the system does not
/// tell (it does on Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    peak_memory_bytes_of(std::process::id())
}

/// As [`peak_memory_bytes`] for another process of this user, for example the engine's.
pub fn peak_memory_bytes_of(pid: u32) -> Option<u64> {
    if cfg!(target_os = "linux") {
        parse_peak(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    } else {
        None
    }
}

/// The `VmHWM:   123 kB` line of a status file, in bytes.
fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read() {
        let status = "Name:\tneurino\nVmPeak:\t  900 kB\nVmHWM:\t  814532 kB\nVmRSS:\t 4 kB\n";
        assert_eq!(parse_peak(status), Some(814_532 * 1024));
        assert_eq!(parse_peak("Name:\tkthreadd\n"), None);
        assert_eq!(parse_peak("VmHWM:\t many kB\n"), None);
        assert_eq!(parse_peak("VmHWM:\t 99999999999999999 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn it_grows_with_what_is_touched() {
        let touched = vec![1_u8; 64 << 20];
        assert_eq!(std::hint::black_box(&touched).len(), 64 << 20);
        assert!(peak_memory_bytes() > Some(64 << 20));
        assert_eq!(peak_memory_bytes_of(u32::MAX), None);
    }
}
