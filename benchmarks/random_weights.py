"""The configuration and tokenizer of a real model with random weights: its cost without its knowledge.

    python benchmarks/random_weights.py microsoft/DialoGPT-medium dialogpt-medium-random
    python benchmarks/random_weights.py models/phi-2 phi-2-random --blocks 4 --dtype bfloat16

SOURCE is a hub id, of which only the configuration and the tokenizer are fetched, or a folder that holds them. Weights
are drawn by Transformers' own initialisation from seed 0. Memory and time of such a model are those of the real one;
its losses start at the logarithm of its vocabulary and say nothing about the real one's.
"""

import argparse

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="hub id or folder with config.json and a tokenizer")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--blocks", type=int, help="decoder blocks, where fewer than the real model's are wanted")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="number format of the weights"
    )
    args = parser.parse_args()

    config = AutoConfig.from_pretrained(args.source)
    if args.blocks is not None:
        config.num_hidden_layers = args.blocks  # GPT-2's n_layer answers to this name too
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, args.dtype))
    model.save_pretrained(args.out)
    AutoTokenizer.from_pretrained(args.source).save_pretrained(args.out)
    print(f"written: {args.out}, {model.num_parameters():,} parameters")


if __name__ == "__main__":
    main()
