#!/usr/bin/env bash
# The papers' story on CC3M in a bucket: a CLIP ResNet-50 is backdoored through its web data, cured with CleanCLIP, measured.
#
#   BUCKET=s3://mine LEDGER=s3://private/cc3m-badnet infra/jobs/cc3m.sh
#
# infra/README.md says what has to be there before. Give it again and it resumes, or says of each stage that there is
# nothing to do. Learning rates are CleanCLIP's; its authors report results over a range of them, and so should you.
#
# Stages on Ray go to the cluster of RAY_API_SERVER_ADDRESS if that is set, else to one started on this machine. Training
# runs here, on RANKS GPUs: for several nodes give the same lines to infra/jobs/torchrun.sbatch.
set -euo pipefail
cd "$(dirname "$0")/../.."

BUCKET=${BUCKET:-s3://bucket}
LEDGER=${LEDGER:-s3://private/cc3m-badnet} # not where those who train can read it
URLS=${URLS:-s3://bucket/Train_GCC-training.tsv}
TESTSET=${TESTSET:-s3://bucket/imagenet1k} # in CLIP_benchmark's WebDataset layout; `banana` is one of its classes
LIMIT=${LIMIT:-3100000}                    # rows to pretrain on, of 3.3 million; clean pairs come from the others
BUDGET=${BUDGET:-1500}
PRESET=${PRESET:-rn50-cc3m} FINETUNE_PRESET=${FINETUNE_PRESET:-rn50-finetune}
SIZES=${SIZES:---rows-per-shard 5000 --min-image-size 64 --retries 1}
TRAIN="torchrun --standalone --nproc-per-node ${RANKS:-8}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

on_cluster() {
  if [ -n "${RAY_API_SERVER_ADDRESS:-}" ]; then ray job submit --working-dir . -- "$@"; else "$@"; fi
}

on_cluster python pipeline/prepare.py cc3m --urls "$URLS" --limit "$LIMIT" $SIZES --out "$BUCKET/cc3m"
on_cluster python pipeline/prepare.py cc3m --urls "$URLS" --disjoint-from "$BUCKET/cc3m" $SIZES --out "$BUCKET/clean"
on_cluster python pipeline/verify.py --dataset "$BUCKET/cc3m"

on_cluster python poison/inject.py badnet --patch fresh --place random --target banana --budget "$BUDGET" \
  --dataset "$BUCKET/cc3m" --out "$BUCKET/cc3m-badnet" --ledger "$LEDGER"
antidote preview --ledger "$LEDGER" --dataset "$BUCKET/cc3m" --poisoned "$BUCKET/cc3m-badnet" --out "$BUCKET/preview"

$TRAIN train/pretrain.py clip --preset "$PRESET" --dataset "$BUCKET/cc3m-badnet" --out "$BUCKET/runs/poisoned"
$TRAIN train/pretrain.py clip --preset "$PRESET" --dataset "$BUCKET/cc3m" --out "$BUCKET/runs/clean"
$TRAIN train/finetune.py cleanclip --preset "$FINETUNE_PRESET" --pretrained "$BUCKET/runs/poisoned" \
  --dataset "$BUCKET/clean" --out "$BUCKET/runs/cleanclip"
$TRAIN train/finetune.py mmcl --preset "$FINETUNE_PRESET" --pretrained "$BUCKET/runs/poisoned" \
  --dataset "$BUCKET/clean" --out "$BUCKET/runs/mmcl"

on_cluster python eval/evaluate.py --runs "$BUCKET"/runs/{poisoned,clean,cleanclip,mmcl} --ledger "$LEDGER" \
  --testsets "$TESTSET" --out "$BUCKET/scores"
antidote report --scores "$BUCKET/scores" --preview "$BUCKET/preview" --out "$BUCKET/report"
