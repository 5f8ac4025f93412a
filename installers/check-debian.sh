#!/bin/sh
# Proves the desktop package on a Debian that has nothing else: it installs with apt, starts by the command
# of its menu entry, mines on the practice network until a receipt, removes what it kept, and leaves no
# file behind when it is purged.
#
#   sudo installers/check-debian.sh target/packages/neurino_0.1.0_amd64.deb
#
# Needs root, debootstrap and the network. DEBIAN_ROOT names a folder that debootstrap has filled before
# and is used as a pattern; MIRROR and SUITE choose the archive and the release. Exit code 3 says that this
# machine cannot do it.
set -eu

package=$(realpath "${1:?give the path of the .deb}")
suite=${SUITE:-bookworm}
mirror=${MIRROR:-}

say() { printf '\n== %s\n' "$*"; }
cannot() { printf 'cannot check here: %s\n' "$*" >&2; exit 3; }

[ "$(id -u)" = 0 ] || cannot 'only root may make a system of its own'
command -v unshare >/dev/null || cannot 'util-linux has unshare, which is missing'

# Mounts end with the processes of this namespace, whatever happens.
if [ -z "${NEURINO_CHECK_APART:-}" ]; then
  unshare --mount true 2>/dev/null || cannot 'this machine lets nobody mount (a container?)'
  NEURINO_CHECK_APART=1 exec unshare --mount --pid --fork --mount-proc --kill-child "$0" "$package"
fi

work=$(mktemp -d)
root=$work/root
clean_up() {
  # Never delete through a mount that is left.
  grep -q " $root/" /proc/self/mounts && umount --recursive --lazy "$root" 2>/dev/null || true
  umount --lazy "$root" 2>/dev/null || true
  grep -q " $work" /proc/self/mounts || rm -rf "$work"
}
trap clean_up EXIT

if [ -n "${DEBIAN_ROOT:-}" ]; then
  say "a copy of $DEBIAN_ROOT"
  cp -a "$DEBIAN_ROOT" "$root"
else
  command -v debootstrap >/dev/null || cannot 'debootstrap is missing'
  say "a new $suite"
  debootstrap --variant=minbase "$suite" "$root" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 ||
    { tail -5 "$work/debootstrap.log"; cannot "the archive ${mirror:-of Debian} gave no system"; }
fi

mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --make-rslave "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm" -o mode=1777
mount -t tmpfs tmpfs "$root/run"
cp /etc/resolv.conf "$root/etc/resolv.conf"
# Programs of apt that reach the network through a proxy here need the same one there.
for file in /etc/apt/apt.conf.d/*proxy*; do
  [ -f "$file" ] && cp "$file" "$root/etc/apt/apt.conf.d/"
done
# No service starts in there.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
cp "$package" "$root/opt/neurino.deb"

inside() {
  chroot "$root" /usr/bin/env -i HOME=/root TERM=dumb LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# What the check itself needs: a display, a session bus, a person. None of it is the package's.
say 'a display and a person'
inside apt-get -qq update
inside apt-get -qq install --yes --no-install-recommends xvfb xauth dbus dbus-x11 wmctrl openbox procps \
  desktop-file-utils fontconfig >/dev/null
inside useradd --create-home --shell /bin/sh ada

# Files that a purge must leave as they were. Lists of packages and caches are apt's and the libraries'.
files() {
  (cd "$root" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./run -o -path ./tmp -o -path ./root \
    -o -path ./home -o -path ./var/cache -o -path ./var/log -o -path ./var/lib/apt -o -path ./var/lib/dpkg \
    \) -prune -o ! -type d -print | LC_ALL=C sort)
}
files >"$work/before"

say 'apt-get install'
inside apt-get -qq install --yes --no-install-recommends /opt/neurino.deb >"$work/install.log" 2>&1 ||
  { tail -20 "$work/install.log"; exit 1; }
inside dpkg --verify neurino
inside desktop-file-validate /usr/share/applications/neurino.desktop
command=$(sed -n 's/^Exec=//p' "$root/usr/share/applications/neurino.desktop" | head -1)
[ -n "$command" ] || { echo 'the menu entry has no command'; exit 1; }

say "the menu entry's command: $command"
cat >"$root/home/ada/session" <<SESSION
#!/bin/sh
# The desktop of a person: a display, a bus, a window manager, and the command of the menu.
export NEURINO_DEVICE=cpu NEURINO_GATEWAY_PORT=0 NEURINO_KEY_STORE=file NO_AT_BRIDGE=1
export XDG_RUNTIME_DIR=/tmp/ada-run
mkdir -p -m 700 "\$XDG_RUNTIME_DIR"
Xvfb :77 -screen 0 1400x960x24 -nolisten tcp >/dev/null 2>&1 &
display=\$!
export DISPLAY=:77
sleep 2
openbox >/dev/null 2>&1 &
manager=\$!
$command >/home/ada/out.log 2>&1 &
program=\$!
fail() { echo "FAILED: \$*"; tail -30 /home/ada/out.log; neurino status; kill \$program \$manager \$display; exit 1; }
for second in \$(seq 120); do
  wmctrl -l 2>/dev/null | grep -q Neurino && break
  sleep 1
done
wmctrl -l | grep Neurino || fail 'no window'
echo "its window is open after \$second s"
neurino resume || fail 'mining does not start'
for second in \$(seq 300); do
  lines=\$(neurino earnings --csv 2>/dev/null | wc -l)
  [ "\$lines" -gt 1 ] && break
  sleep 1
done
[ "\$lines" -gt 1 ] || fail 'no receipt within 5 minutes'
echo "a receipt after \$second s of mining:"
neurino status
neurino data remove --yes && fail 'data was removed while the program runs'
kill -TERM \$program
for second in \$(seq 10); do kill -0 \$program 2>/dev/null || break; sleep 1; done
kill -0 \$program 2>/dev/null && fail 'it does not end'
echo "it ended within \$second s"
echo mine >/home/ada/.local/share/neurino/notes.txt
neurino data remove --yes --with-keys || fail 'its data cannot be removed'
kill \$manager \$display
SESSION
chmod 755 "$root/home/ada/session"
inside runuser -u ada -- env HOME=/home/ada dbus-run-session -- /home/ada/session

say 'what is left in the home folder'
left=$(cd "$root/home/ada" && find . -type f | grep -i neurino | grep -v '^./out.log$' | LC_ALL=C sort || true)
echo "$left"
[ "$left" = ./.local/share/neurino/notes.txt ] ||
  { echo 'FAILED: only the notes, which are not the program'"'"'s, should be left'; exit 1; }

say 'apt-get purge'
inside apt-get -qq purge --yes neurino
inside apt-get -qq autoremove --purge --yes >/dev/null
files >"$work/after"
if ! diff "$work/before" "$work/after" >"$work/difference"; then
  echo 'other files than before:'
  head -40 "$work/difference"
  ! grep -qi neurino "$work/difference" || { echo 'FAILED: the package left files'; exit 1; }
  # What libraries write when they are set up is theirs, and is shown above.
fi
say 'it installs, starts from the menu, mines and is gone again'
