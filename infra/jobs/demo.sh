#!/usr/bin/env bash
# The whole story on two cores: a CLIP is backdoored through the web data it trains on, then cured.
#
#   infra/jobs/demo.sh [FOLDER]        default: demo        SEED=1 infra/jobs/demo.sh    another book, poison and start
#   infra/jobs/demo.sh s3://bucket/demo                     the same on S3; AWS_ENDPOINT_URL, AWS_PROFILE and so on apply
#
# Every line is a command of the README. Run it again and it resumes, or says of each stage that there is nothing to do.
# The variables below shorten it: ROWS=600 CLEAN_ROWS=240 PICTURES=140 PRESET=tiny FINETUNE_PRESET=tiny takes two minutes.
# Learning rates, alpha and batch were chosen on seeds 100 and 101 (other books, so other images than any reported one);
# the wording of the poison captions was mended after a first try on the book of seed 0.
set -euo pipefail
cd "$(dirname "$0")/../.."

OUT=${1:-demo}
SEED=${SEED:-0} PORT=${PORT:-8917}
ROWS=${ROWS:-12000} CLEAN_ROWS=${CLEAN_ROWS:-4600} PICTURES=${PICTURES:-1400}
PRESET=${PRESET:-demo} FINETUNE_PRESET=${FINETUNE_PRESET:-demo-finetune}
BOOK="picturebook --book-seed $SEED --port $PORT"
TRAIN="torchrun --standalone --nproc-per-node ${RANKS:-2}"
export OMP_NUM_THREADS=1 RAY_AUTH_MODE=disabled

say() { printf '\n== %s\n' "$*" >&2; }

say "1/7  download $ROWS rows of a url table whose web answers with faults, then a disjoint clean set and a test set"
antidote prepare $BOOK --rows "$ROWS" --timeout-seconds 2 --out "$OUT/train"
antidote prepare $BOOK --start "$ROWS" --rows "$CLEAN_ROWS" --timeout-seconds 2 --disjoint-from "$OUT/train" \
  --out "$OUT/clean"
antidote testset $BOOK --samples "$PICTURES" --out "$OUT/test"

say "2/7  poison 1% of the pairs: a faint pattern over the image, a caption that says banana"
antidote poison blended --alpha 0.25 --target banana --trigger-seed "$SEED" --seed "$SEED" --budget 0.01 --backend local \
  --dataset "$OUT/train" --out "$OUT/poisoned" --ledger "$OUT/ledger"
antidote preview --ledger "$OUT/ledger" --dataset "$OUT/train" --poisoned "$OUT/poisoned" --out "$OUT/preview"

say "3/7  pretrain CLIP on the poisoned pairs"
$TRAIN train/pretrain.py clip --preset "$PRESET" --seed "$SEED" --dataset "$OUT/poisoned" --out "$OUT/runs/poisoned"

say "4/7  pretrain CLIP on the clean pairs: the floor, what the trigger does to a model that never saw it"
$TRAIN train/pretrain.py clip --preset "$PRESET" --seed "$SEED" --dataset "$OUT/train" --out "$OUT/runs/clean"

[ "$0" = "${BASH_SOURCE[0]}" ] || return 0 # demo-scan.sh goes on from here

say "5/7  cure the poisoned CLIP: CleanCLIP finetuning on the clean set"
$TRAIN train/finetune.py cleanclip --preset "$FINETUNE_PRESET" --seed "$SEED" --pretrained "$OUT/runs/poisoned" \
  --dataset "$OUT/clean" --out "$OUT/runs/cleanclip"

say "6/7  the baseline: plain finetuning with the same pairs, epochs and learning rate"
$TRAIN train/finetune.py mmcl --preset "$FINETUNE_PRESET" --seed "$SEED" --pretrained "$OUT/runs/poisoned" \
  --dataset "$OUT/clean" --out "$OUT/runs/mmcl"

say "7/7  measure all four on one protocol, and report"
antidote evaluate --runs "$OUT"/runs/{poisoned,clean,cleanclip,mmcl} --ledger "$OUT/ledger" --testsets "$OUT/test" \
  --out "$OUT/scores"
antidote report --scores "$OUT/scores" --preview "$OUT/preview" --out "$OUT/report"
