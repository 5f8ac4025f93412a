//! Environment variables of the window's process: set before GTK starts, undone in its children.
//!
//! WebKitGTK has two traps that only the environment gets around. A `C` locale makes
//! `navigator.language` "C", on which `Intl` throws and the page stays blank. And beside NVIDIA's
//! driver its web process opens the card (video memory we want for jobs, and blank windows under
//! Wayland). What the person has set is never overwritten, the unusable locale excepted.

use std::collections::BTreeMap;
use std::path::Path;

/// Names the variables that [`prepare`] set, separated by commas, for [`undo`] in a child.
const OURS: &str = "NEURINO_WINDOW_ENV";

/// Written by the NVIDIA kernel module while it is loaded.
const NVIDIA_MODULE: &str = "/proc/driver/nvidia/version";

/// Mesa's entry for the EGL loader, as Debian, Ubuntu, Fedora and Arch ship it.
const MESA_EGL: &str = "/usr/share/glvnd/egl_vendor.d/50_mesa.json";

/// From this version on, WebKitGTK's DMABUF switch does harm instead of good.
const DMABUF_SWITCH_ENDS: (u32, u32) = (2, 52);

/// Sets what the window needs. Call it before GTK starts and before any thread exists.
pub(crate) fn prepare() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let machine = Machine {
        nvidia: Path::new(NVIDIA_MODULE).exists(),
        mesa_egl: Path::new(MESA_EGL).exists(),
        webkit: tauri::webview_version().ok().as_deref().and_then(version),
    };
    let changes = changes(&|name| std::env::var(name).ok(), &machine);
    if changes.is_empty() {
        return;
    }
    let names: Vec<&str> = changes.keys().copied().collect();
    set(OURS, &names.join(","));
    for (name, value) in changes {
        set(name, value);
    }
}

/// Takes back what the parent's [`prepare`] set. Call it before any thread exists.
pub(crate) fn undo() {
    let Ok(names) = std::env::var(OURS) else { return };
    for name in names.split(',').chain([OURS]) {
        // An engine keeps the locale: it changes nothing there, and the old one is unusable.
        if !matches!(name, "" | "LC_ALL") && !name.contains(['=', '\0']) {
            remove(name);
        }
    }
}

/// What the choice of variables depends on.
struct Machine {
    nvidia: bool,
    mesa_egl: bool,
    webkit: Option<(u32, u32)>,
}

/// The variables to set; `get` reads the present ones.
fn changes(
    get: &dyn Fn(&str) -> Option<String>,
    machine: &Machine,
) -> BTreeMap<&'static str, &'static str> {
    let present = |name: &str| get(name).filter(|value| !value.is_empty());
    let mut changes = BTreeMap::new();
    let locale = present("LC_ALL").or_else(|| present("LC_MESSAGES")).or_else(|| present("LANG"));
    if locale.is_some_and(|l| l == "C" || l == "POSIX" || l.starts_with("C.")) {
        changes.insert("LC_ALL", "en_US.UTF-8");
    }
    if machine.nvidia {
        let mut unless_set = |name: &'static str, value: &'static str| {
            if get(name).is_none() {
                changes.insert(name, value);
            }
        };
        unless_set("__NV_DISABLE_EXPLICIT_SYNC", "1");
        // Without any EGL vendor the web process aborts: only name Mesa where Mesa is.
        if machine.mesa_egl {
            unless_set("__EGL_VENDOR_LIBRARY_FILENAMES", MESA_EGL);
            unless_set("__GLX_VENDOR_LIBRARY_NAME", "mesa");
            unless_set("LIBGL_ALWAYS_SOFTWARE", "1");
        }
        if machine.webkit.is_some_and(|version| version < DMABUF_SWITCH_ENDS) {
            unless_set("WEBKIT_DISABLE_DMABUF_RENDERER", "1");
        }
    }
    changes
}

/// Major and minor version out of `2.50.6`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[expect(unsafe_code, reason = "only the environment reaches WebKitGTK's web process")]
fn set(name: &str, value: &str) {
    // SAFETY: both callers run at the top of `main`, before any other thread exists.
    unsafe { std::env::set_var(name, value) }
}

#[expect(unsafe_code, reason = "an engine must not inherit the window's variables")]
fn remove(name: &str) {
    // SAFETY: the caller runs at the top of `main`, before any other thread exists.
    unsafe { std::env::remove_var(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Machine = Machine { nvidia: false, mesa_egl: true, webkit: Some((2, 50)) };
    const NVIDIA: Machine = Machine { nvidia: true, mesa_egl: true, webkit: Some((2, 50)) };

    fn check(present: &[(&str, &str)], machine: &Machine, expect: &[(&str, &str)]) {
        let get = |name: &str| {
            present.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        let found: Vec<_> = changes(&get, machine).into_iter().collect();
        assert_eq!(found, expect, "from {present:?}");
    }

    #[test]
    fn a_locale_without_a_language_is_replaced_and_any_other_kept() {
        check(&[("LANG", "C.UTF-8")], &PLAIN, &[("LC_ALL", "en_US.UTF-8")]);
        check(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")], &PLAIN, &[("LC_ALL", "en_US.UTF-8")]);
        check(&[("LC_ALL", ""), ("LANG", "POSIX")], &PLAIN, &[("LC_ALL", "en_US.UTF-8")]);
        check(&[("LANG", "de_DE.UTF-8")], &PLAIN, &[]);
        check(&[("LANG", "C.UTF-8"), ("LC_ALL", "pt_BR.UTF-8")], &PLAIN, &[]);
        check(&[], &PLAIN, &[]);
    }

    #[test]
    fn beside_nvidias_driver_the_page_is_kept_off_the_card() {
        check(
            &[],
            &NVIDIA,
            &[
                ("LIBGL_ALWAYS_SOFTWARE", "1"),
                ("WEBKIT_DISABLE_DMABUF_RENDERER", "1"),
                ("__EGL_VENDOR_LIBRARY_FILENAMES", MESA_EGL),
                ("__GLX_VENDOR_LIBRARY_NAME", "mesa"),
                ("__NV_DISABLE_EXPLICIT_SYNC", "1"),
            ],
        );
    }

    #[test]
    fn what_the_person_set_stays_and_mesa_is_named_only_where_it_is() {
        let newer = Machine { nvidia: true, mesa_egl: false, webkit: Some((2, 52)) };
        check(&[], &newer, &[("__NV_DISABLE_EXPLICIT_SYNC", "1")]);
        check(&[("__NV_DISABLE_EXPLICIT_SYNC", "0")], &newer, &[]);
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("2.50.6"), Some((2, 50)));
        assert_eq!(version("unknown"), None);
    }
}
