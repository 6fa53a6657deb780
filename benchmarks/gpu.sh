#!/usr/bin/env bash
# Everything that is measured on a GPU, in one command, within nine minutes.
#
#   benchmarks/gpu.sh [--dry-run] [--deadline SECONDS] [--stages NAME,NAME] [--wheels FOLDER]
#                     [--data-dir FOLDER] [FOLDER]
#
# FOLDER      for the results; by default benchmarks/results/gpu-DATE
# --deadline  seconds for all of it (520): a stage gets what is left of them at most, and one that
#             no longer fits is left out, and said
# --stages    environment, tests, float32, mnist, matmul, tf32, pictures; by default all
# --wheels    folder with wheels of what is missing, and of nothing else, for they come before what
#             is installed; beside CuPy, PyTorch, JAX and matplotlib perhaps: pip download --no-deps
#             array-api-compat tqdm tyro docstring-parser typeguard tomli-w pooch platformdirs
#             (they are unpacked into a temporary folder, by pip, without an index)
# --data-dir  folder with the MNIST files: without it the steps train on random images, and the
#             stage mnist is left out, since a machine like this may have no network
# --dry-run   every stage on the CPU, tiny: is the script itself in order?
#
# $PYTHON chooses the Python. Ends with status 1 if a stage failed, 2 if an option is wrong.

set -u
SECONDS=0
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
deadline=520 stages=environment,tests,float32,mnist,matmul,tf32,pictures
dry='' wheels='' data_dir='' out=''

refuse() {
    echo "benchmarks/gpu.sh: $1" >&2
    exit 2
}

while (($#)); do
    case $1 in
    --dry-run) dry=yes ;;
    -h | --help)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    --deadline | --stages | --wheels | --data-dir)
        (($# > 1)) || refuse "$1: expected a value"
        case $1 in
        --deadline) deadline=$2 ;;
        --stages) stages=$2 ;;
        --wheels) wheels=$(cd "$2" && pwd) || refuse "--wheels $2: expected a folder" ;;
        --data-dir) data_dir=$(cd "$2" && pwd) || refuse "--data-dir $2: expected a folder" ;;
        esac
        shift
        ;;
    -*) refuse "$1: expected --dry-run, --deadline, --stages, --wheels or --data-dir" ;;
    *) out=$1 ;;
    esac
    shift
done
[[ $deadline =~ ^[0-9]+$ ]] || refuse "--deadline $deadline: expected seconds"
for name in ${stages//,/ }; do
    [[ ,environment,tests,float32,mnist,matmul,tf32,pictures, == *,$name,* ]] ||
        refuse "--stages $name: expected environment, tests, float32, mnist, matmul, tf32, pictures"
done

out=${out:-$root/benchmarks/results/gpu-$(date +%F)}
mkdir -p "$out" || refuse "$out: cannot be made"
out=$(cd "$out" && pwd)
cd "$root" || exit 2
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1 # who runs out of time has said where it was
failed=0

if [[ $wheels ]]; then
    packages=$(mktemp -d)
    trap 'rm -rf "$packages"' EXIT
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
        --target "$packages" "$wheels"/*.whl || refuse "--wheels $wheels: pip could not unpack them"
    PYTHONPATH=$PYTHONPATH:$packages
fi

# stage GROUP NAME LEAST MOST COMMAND...: runs it within its own limit and the time that is left,
# its output in NAME.txt. LEAST is what it needs to be worth beginning; 15 s are for the report.
stage() {
    local group=$1 name=$2 least=$3 most=$4 left=$((deadline - 15 - SECONDS)) began=$SECONDS status
    shift 4
    [[ ,$stages, == *,$group,* ]] || return 0
    rm -f "$out/$name.jsonl" "$out/$name.json" # an earlier run's would pass for this one's
    if ((left < least)); then
        echo "$name: LEFT OUT, it needs some $least s and $left are left"
        return 0
    fi
    timeout --kill-after=5 "$((left < most ? left : most))" "$@" >"$out/$name.txt" 2>&1
    status=$?
    if ((status == 0)); then
        echo "$name: done in $((SECONDS - began)) s"
        [[ $name == tests ]] && tail -n 1 "$out/$name.txt"
    else
        ((status == 124 || status == 137)) && status="$status, out of time"
        echo "$name: FAILED after $((SECONDS - began)) s, status $status; the end of $name.txt:"
        tail -n 5 "$out/$name.txt" | cut -c 1-300
        failed=1
    fi
}

# train PRECISION NETWORK LEAST MOST: the contenders of a network, side by side.
train() {
    local name=train_step-$1-${2//\//-}
    stage "$1" "$name" "$3" "$4" "$python" -m benchmarks.train_step --networks "$2" \
        "${how[@]}" --out "$out/$name.jsonl"
}

environment() {
    date --iso-8601=seconds
    git -C "$root" rev-parse HEAD 2>/dev/null
    nvidia-smi || [[ $dry ]] || return 1
    "$python" -c '
import json
from benchmarks import machine

print(json.dumps(machine.record(), indent=2))'
}
export -f environment
export root python dry

data=()
[[ $data_dir ]] && data=(--data-dir "$data_dir")
stage environment environment 1 60 bash -c environment

if [[ $dry ]]; then
    PYTHONPATH=$root/tests/simulator:$PYTHONPATH XPNET_NEED_GPU=1 stage tests tests 1 60 "$python" \
        -m pytest -q -p no:cacheprovider -m gpu tests/test_gates.py
    how=(--rounds 2 --seconds 0.001 --only "xpnet numpy" "book loop" "floor numpy")
    train float32 12-5-3/4 1 60
    stage matmul matmul 1 60 "$python" -m benchmarks.matmul --quick --sizes 8 16 --devices cpu \
        --dtypes float32 --libraries numpy --rounds 1 --seconds 0.0005 --out "$out/matmul.jsonl"
else
    # On a fresh machine nearly all of their time is CuPy's compiling, which runs side by side.
    side_by_side=()
    "$python" -c 'import xdist' 2>/dev/null && side_by_side=(-n 8)
    XPNET_NEED_GPU=1 stage tests tests 10 150 "$python" -m pytest -q -p no:cacheprovider -m gpu \
        "${side_by_side[@]}"
    how=(--device cuda --precisions float32 --rounds 7 --seconds 0.2 "${data[@]}")
    for network in S M L D; do train float32 "$network" 30 150; done
    if [[ $data_dir ]]; then
        stage mnist mnist 20 90 "$python" -m benchmarks.mnist --device cuda "${data[@]}" \
            --out "$out/mnist.json"
    elif [[ ,$stages, == *,mnist,* ]]; then
        echo "mnist: LEFT OUT, it needs --data-dir"
    fi
    stage matmul matmul 40 110 "$python" -m benchmarks.matmul --quick --sizes 64 256 1024 \
        --batches 1 16 --devices cuda --libraries torch jax cupy cublas \
        --dtypes float32 tf32 bfloat16 float16 --baseline "cublas cuda" --out "$out/matmul.jsonl"
    # torch.compile takes longest to begin, and has no other products in this lane.
    how=(--device cuda --precisions tf32 --rounds 7 --seconds 0.2 "${data[@]}"
        --only "xpnet cupy" "xpnet torch" "xpnet jax" "pytorch eager" "pytorch graph" "jax scan"
        "jax scan unroll 4" "floor torch")
    for network in S L M D; do train tf32 "$network" 25 100; done
fi
for file in "$out"/train_step-*.jsonl "$out/matmul.jsonl"; do
    [[ -s $file ]] || continue
    name=$(basename "$file" .jsonl)
    stage pictures "pictures-$name" 2 30 "$python" -m benchmarks.pictures "$file" "$out/$name"
done

echo
timeout 15 "$python" -m benchmarks.gpu_report "$out" 2>&1 | tee "$out/summary.txt"
((PIPESTATUS[0] == 0)) || failed=1
exit $failed
