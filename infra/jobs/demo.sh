#!/usr/bin/env bash
# The whole story on two cores: a CLIP is backdoored through the web data it trains on, then cured.
#
#   infra/jobs/demo.sh [FOLDER]        default: demo        SEED=1 infra/jobs/demo.sh    another book, poison and start
#
# Every line is a command of the README. Run it again and it resumes, or says of each stage that there is nothing to do.
# Learning rates, alpha and batch were chosen on seeds 100 and 101 (other books, so other pictures than any reported one);
# the wording of the poison captions was mended after a first try on the book of seed 0.
set -euo pipefail
cd "$(dirname "$0")/../.."

OUT=${1:-demo}
SEED=${SEED:-0}
BOOK="picturebook --book-seed $SEED"
TRAIN="torchrun --standalone --nproc-per-node ${RANKS:-2}"
export OMP_NUM_THREADS=1 RAY_AUTH_MODE=disabled

say() { printf '\n== %s\n' "$*" >&2; }

say "1/7  download 12,000 rows of a url table whose web answers with faults, then a disjoint clean set and a test set"
antidote prepare $BOOK --rows 12000 --timeout-seconds 2 --out "$OUT/train"
antidote prepare $BOOK --start 12000 --rows 4600 --timeout-seconds 2 --disjoint-from "$OUT/train" --out "$OUT/clean"
antidote testset $BOOK --samples 1400 --out "$OUT/test"

say "2/7  poison 1% of the pairs: a faint pattern over the picture, a caption that says banana"
antidote poison blended --alpha 0.25 --target banana --trigger-seed "$SEED" --seed "$SEED" --budget 0.01 --backend local \
  --dataset "$OUT/train" --out "$OUT/poisoned" --ledger "$OUT/ledger"
antidote preview --ledger "$OUT/ledger" --dataset "$OUT/train" --poisoned "$OUT/poisoned" --out "$OUT/preview.png"

say "3/7  pretrain CLIP on the poisoned pairs"
$TRAIN train/pretrain.py clip --preset demo --seed "$SEED" --dataset "$OUT/poisoned" --out "$OUT/runs/poisoned"

say "4/7  pretrain CLIP on the clean pairs: the floor, what the trigger does to a model that never saw it"
$TRAIN train/pretrain.py clip --preset demo --seed "$SEED" --dataset "$OUT/train" --out "$OUT/runs/clean"

say "5/7  cure the poisoned CLIP: CleanCLIP finetuning on the clean set"
$TRAIN train/finetune.py cleanclip --preset demo-finetune --seed "$SEED" --pretrained "$OUT/runs/poisoned" --dataset "$OUT/clean" \
  --out "$OUT/runs/cleanclip"

say "6/7  the control: plain finetuning with the same pairs, epochs and learning rate"
$TRAIN train/finetune.py mmcl --preset demo-finetune --seed "$SEED" --pretrained "$OUT/runs/poisoned" --dataset "$OUT/clean" \
  --out "$OUT/runs/mmcl"

say "7/7  measure all four on one protocol, and report"
antidote evaluate --runs "$OUT"/runs/{poisoned,clean,cleanclip,mmcl} --ledger "$OUT/ledger" --testsets "$OUT/test" \
  --out "$OUT/scores"
antidote report --scores "$OUT/scores" --preview "$OUT/preview.png" --out "$OUT/report"
