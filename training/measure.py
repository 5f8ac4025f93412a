"""How often a file's pictures have the colours that the prompt asks for: the figures of the model card.

Shapes on backgrounds in all pairs of some colours: the colour in the middle and that of the four corners are each compared
with the named colours. Landscapes at three hours: the middle of the upper edge is compared with the three skies.
"""
import argparse
import pathlib

import numpy as np
import torch

import sample
import scenes
import train

NAMES = ["red", "yellow", "green", "blue", "purple", "white", "black"]
PLACES = ["a castle", "mountains", "a house with a red roof", "the sea"]
HOURS = {"by day": "day", "at sunset": "sunset", "at night": "night"}


def nearest(colour, named):
    return min(named, key=lambda name: float(np.abs(np.array(named[name], float) - colour).sum()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--vocabulary", type=pathlib.Path, default=pathlib.Path("bpe_simple_vocab_16e6.txt.gz"))
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--out", type=pathlib.Path, help="the pictures, as a grid")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, networks = train.Tokenizer(args.vocabulary), sample.load(args.file)
    pairs = [(a, b) for a in NAMES for b in NAMES if a != b]
    prompts = [f"a {a} {'circle' if i % 2 else 'square'} on a {b} background" for i, (a, b) in enumerate(pairs)]
    skies = [(f"{place} {hour}", name) for place in PLACES for hour, name in HOURS.items()]
    settings = {"seed": args.seed, "steps": args.steps, "guidance": args.guidance}
    pictures = sample.draw(networks, tokenizer, prompts + [p for p, _ in skies], **settings)
    colours = {n: scenes.COLOURS[n] for n in NAMES}
    middle = [nearest(p[29:35, 29:35].mean((0, 1)), colours) == a for p, (a, _) in zip(pictures, pairs)]
    corners = [np.mean([p[y : y + 6, x : x + 6].mean((0, 1)) for y in (1, 57) for x in (1, 57)], 0) for p in pictures[: len(pairs)]]
    behind = [nearest(c, colours) == b for c, (_, b) in zip(corners, pairs)]
    above = {name: scenes.SKIES[name][0] for name in HOURS.values()}
    sky = [nearest(p[:4, 26:38].mean((0, 1)), above) == name for p, (_, name) in zip(pictures[len(pairs) :], skies)]
    print(f"of {len(pairs)}: shape {sum(middle)}, background {sum(behind)}, both {sum(a and b for a, b in zip(middle, behind))}; sky {sum(sky)} of {len(sky)}")
    if args.out:
        sample.grid(pictures, 9, 1).save(args.out)


if __name__ == "__main__":
    main()
