#!/bin/sh
# Renders the PNG set and the Windows icon from the drawings. Needs rsvg-convert and icotool (Debian:
# librsvg2-bin, icoutils).
set -eu
cd "$(dirname "$0")"
for size in 32 128 256; do
  rsvg-convert -w "$size" -h "$size" neurino.svg -o "${size}x${size}.png"
done
rsvg-convert -w 512 -h 512 neurino.svg -o icon.png
for state in stopped waiting working attention; do
  rsvg-convert -w 32 -h 32 "tray-$state.svg" -o "tray-$state.png"
done

small="$(mktemp -d)"
trap 'rm -rf "$small"' EXIT
for size in 16 24 32 48 64; do
  rsvg-convert -w "$size" -h "$size" neurino.svg -o "$small/$size.png"
done
# Windows reads the large one as PNG; the small ones stay bitmaps for its oldest dialogs.
icotool --create --output=icon.ico "$small"/16.png "$small"/24.png "$small"/32.png "$small"/48.png \
  "$small"/64.png --raw=256x256.png
