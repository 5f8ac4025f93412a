#!/bin/sh
# Renders the PNG set from the drawings. Needs rsvg-convert (Debian: librsvg2-bin).
set -eu
cd "$(dirname "$0")"
for size in 32 128 256; do
  rsvg-convert -w "$size" -h "$size" neurino.svg -o "${size}x${size}.png"
done
rsvg-convert -w 512 -h 512 neurino.svg -o icon.png
for state in stopped waiting working attention; do
  rsvg-convert -w 32 -h 32 "tray-$state.svg" -o "tray-$state.png"
done
