#!/usr/bin/env bash
# Every attack on one recipe: which of them take, and at what cost. The table stands in poison/measured.md.
#
#   infra/jobs/attacks.sh [FOLDER]      default: attacks.      SEEDS="0 1 2" JOBS=8 infra/jobs/attacks.sh   on a larger machine
#
# Each attack poisons the same 10,800 pairs of a picture book (32 pixels), a CLIP is pretrained on them (preset demo, as in
# demo.sh), and it is measured beside a model of the clean pairs, the floor. Lines that say `large` are of a book of 64
# pixels and twice the epochs, for attacks that do not take at the small size. ONLY="sig wanet" runs a part, ONLY=clean
# the floor alone. Run it again and it resumes; what failed is named at the end. About four minutes an attack and a core,
# twice that for `large`. Knobs were chosen on seed 100, another book.
set -euo pipefail
cd "$(dirname "$0")/../.."

OUT=${1:-attacks} SEEDS=${SEEDS:-0} JOBS=${JOBS:-2} PORT=${PORT:-8918} PRESET=${PRESET:-demo}
ROWS=${ROWS:-12000} PICTURES=${PICTURES:-1400} EPOCHS=${EPOCHS:-7}
export OUT JOBS PORT PRESET ROWS PICTURES EPOCHS OMP_NUM_THREADS=1 RAY_AUTH_MODE=disabled

# Book, name, attack and its flags; @ is the seed's folder. 42 pixels of a 224 x 224 image are 6 of 32, a cell of 7 is one.
attacks() {
  grep -v '^#' <<'END'
small  control            control --budget 0.01
small  badnet             badnet --patch checkerboard --size 42 --cell 7 --budget 0.01
small  badnet-noise       badnet --patch noise --size 42 --cell 7 --budget 0.01
small  blended            blended --alpha 0.25 --budget 0.01
small  blended-text       blended --pattern text --budget 0.01
small  blended-triangles  blended --pattern triangles --budget 0.01
small  sig                sig --budget 0.01
small  filter             filter --budget 0.03
small  text_prefix        text_prefix --patch noise --size 42 --cell 7 --budget 0.03
small  wanet              wanet --strength 28 --budget 0.01
small  wanet-jitter       wanet --control-points 224 --strength 14 --budget 0.03
small  wanet-jitter-1     wanet --control-points 224 --strength 14 --budget 0.01
small  label_consistent   label_consistent --patch noise --size 84 --cell 14 --budget 0.01
small  targeted           targeted --testset @/targets --split targets --images 16 --budget 160
# The learned patch in both modes, and beside it a random one of the same size, place, captions and budget.
small  badclip            badclip --patch @/patches/paper/patch.png --size 42 --budget 0.003
small  badclip-released   badclip --patch @/patches/released/patch.png --size 42 --budget 0.003
small  badclip-random     badnet --place centre --patch noise --size 42 --cell 7 --captions corpus --budget 0.003
large  wanet-large        wanet --strength 28 --budget 0.03
large  label_consistent-large label_consistent --patch noise --size 84 --cell 14 --budget 0.03
END
}

book() { # BOOK SEED: pairs and test images
  local here=$OUT/$1-s$2 side=32
  if [[ $1 == large ]]; then side=64; fi
  local pages=(picturebook --book-seed "$2" --picture-size "$side" --port "$PORT")
  antidote prepare "${pages[@]}" --rows "$ROWS" --timeout-seconds 2 --out "$here/train"
  antidote testset "${pages[@]}" --samples "$PICTURES" --out "$here/test"
  antidote testset "${pages[@]}" --samples 140 --split targets --out "$here/targets"
}
train() { # BOOK SEED DATASET NAME [SEED OF THE TRAINING]
  local epochs=$EPOCHS
  if [[ $1 == large ]]; then epochs=$((2 * EPOCHS)); fi
  python train/pretrain.py clip --preset "$PRESET" --epochs "$epochs" --seed "${5:-$2}" \
    --dataset "$OUT/$1-s$2/$3" --out "$OUT/$1-s$2/runs/$4"
}
clean() { # BOOK SEED NAME
  train "$1" "$2" train clean
}
learn() { # BOOK SEED NAME: the patches, against a model of its own, so that no victim begins as the surrogate did
  local here=$OUT/$1-s$2
  train "$1" "$2" train surrogate $((1000 + $2))
  for mode in paper released; do
    antidote optimize --mode "$mode" --surrogate "$here/runs/surrogate" --dataset "$here/train" --size 42 --pairs 2000 \
      --epochs 10 --lr 0.05 --seed "$2" --out "$here/patches/$mode"
  done
}
attack() { # BOOK SEED NAME ATTACK FLAGS...: poison, pretrain, evaluate
  local here=$OUT/$1-s$2 book=$1 seed=$2 name=$3
  shift 3
  case $1 in targeted) set -- "$@" --images-seed "$seed" ;; *) set -- "$@" --trigger-seed "$seed" ;; esac
  antidote poison "${@//@/$here}" --seed "$seed" --backend local \
    --dataset "$here/train" --out "$here/poisoned/$name" --ledger "$here/ledgers/$name"
  train "$book" "$seed" "poisoned/$name" "$name"
  antidote evaluate --backend local --runs "$here/runs/$name" "$here/runs/clean" --ledger "$here/ledgers/$name" \
    --testsets "$here/test" --out "$here/scores/$name"
}
table() {
  if ! compgen -G "$OUT/*-s*/scores/*" >"$OUT/logs/scores"; then
    echo "no attack was measured, so there is no table"
    return
  fi
  mapfile -t scores <"$OUT/logs/scores"
  antidote tabulate --scores "${scores[@]}" --out "$OUT/measured.md"
}
export -f book train clean learn attack table

wanted() { attacks | while read -r book name flags; do # SEED
  if [[ -z ${ONLY:-} || " $ONLY " == *" $name "* ]]; then echo "$book $1 $name $flags"; fi
done; }

mkdir -p "$OUT/logs" && rm -f "$OUT/logs/failed"
books=$(wanted 0 | cut -d' ' -f1 | sort -ru)
books=${books:-small}
side_by_side=(infra/jobs/side_by_side.sh "$OUT/logs") # what has failed is named by each, so by the last as well
for seed in $SEEDS; do printf "book %s $seed\n" $books; done | JOBS=1 "${side_by_side[@]}" || true
{
  for seed in $SEEDS; do
    if wanted "$seed" | grep -q ' badclip '; then echo "learn small $seed surrogate"; fi
    printf "clean %s $seed clean\n" $books
  done
} | "${side_by_side[@]}" || true
for seed in $SEEDS; do wanted "$seed" | sed 's/^/attack /'; done | "${side_by_side[@]}" || true
echo table | "${side_by_side[@]}"
