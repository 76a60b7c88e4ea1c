#!/usr/bin/env bash
# make demo: one real picture, one question, one answer, with a tiny random model that is made from the committed test checkpoint.
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
picture=tests/golden/images/demo.jpg
echo
echo "1. A checkpoint folder becomes one weights file:"
"$build/breastgpt-convert" tests/golden/tiny-breastgpt -o "$work/tiny.gguf" --type bf16
echo
echo "2. The file is whole:"
"$build/breastgpt" verify "$work/tiny.gguf"
echo
echo "3. A question about a real picture ($picture, a photograph of a retina, CC0):"
echo "   > What does the picture show?"
echo
"$build/breastgpt" ask -m "$work/tiny.gguf" --image "$picture" --max-tokens 32 "What does the picture show?"
echo
echo "The answer above is noise: this tiny model has random weights, from a fixed seed, and was never trained. What the demo shows is that the whole path"
echo "runs: picture, ViT, token selection, decoder, text. With a real checkpoint the same commands give real answers."
