#!/usr/bin/env bash
# Runs all measurements on a GPU, in four calls. An interruption loses no result.
#
#   benchmarks/gpu.sh [--dry-run] [--deadline SECONDS] [--stages NAME,NAME] [--wheels FOLDER]
#                     [--data-dir FOLDER] [--out-archive FILE] [FOLDER]
#
# The first call checks that everything works. The second call measures, with the default stages
# and deadline; the third measures many networks at once, the fourth convolution networks:
#
#   timeout -k 5 148 benchmarks/gpu.sh --stages train,probe,tests --deadline 140 \
#       --wheels WHEELS --data-dir MNIST --out-archive first.tgz FOLDER
#   timeout -k 5 450 benchmarks/gpu.sh \
#       --wheels WHEELS --data-dir MNIST --out-archive second.tgz FOLDER
#   timeout -k 5 140 benchmarks/gpu.sh --stages environment,many --deadline 130 \
#       --wheels WHEELS --data-dir MNIST --out-archive third.tgz FOLDER
#   timeout -k 5 140 benchmarks/gpu.sh --stages environment,convolution --deadline 130 \
#       --wheels WHEELS --data-dir MNIST --out-archive fourth.tgz FOLDER
#
# FOLDER         folder for the results; by default benchmarks/results/gpu-DATE
# --deadline     seconds for the whole call (440). A stage gets at most the seconds that are left;
#                a stage that no longer fits is skipped and reported
# --stages       stages to run, of environment, train, probe, tests, many, convolution, float32,
#                mnist, tf32, matmul, pictures, compile, estimators; they run in this order. By
#                default all but train, probe, tests, many and convolution; with --dry-run all. The
#                stage compile measures PyTorch's compiler beside "xpnet cupy"; it comes late, since
#                it takes longest to start. The stage estimators measures MLPClassifier on the GPU
#                beside scikit-learn's on the CPU
# --wheels       folder with wheels of the missing packages, and of no others, since they come
#                before installed ones. Besides CuPy, PyTorch, JAX and matplotlib you may need: pip
#                download --no-deps array-api-compat tqdm tyro docstring-parser typeguard tomli-w
#                pooch platformdirs; and for the stage estimators scikit-learn and what it needs,
#                scipy joblib threadpoolctl narwhals. pip unpacks them into a temporary folder, without an index
# --data-dir     folder with the MNIST files. Without it, the steps train on random images, and the
#                stages train and mnist are skipped, since the machine may have no network
# --out-archive  file outside of FOLDER for a .tgz of FOLDER; every stage replaces it whole
# --dry-run      run every stage on the CPU with tiny sizes, to check the script itself
#
# SIGTERM and SIGINT end the running stage, which writes what it has. The script then writes report
# and archive, within five seconds; its status is 128 + the signal's number. Even after SIGKILL, the
# files in FOLDER are complete, and the archive has everything up to the last stage that ended.
#
# $PYTHON chooses the Python. The status is 1 if a stage failed, and 2 if an option is wrong.

set -u
SECONDS=0
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
known=environment,train,probe,tests,many,convolution,float32,mnist,tf32,matmul,pictures,compile,estimators
deadline=440 stages=''
dry='' wheels='' data_dir='' out='' archive=''

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
    --deadline | --stages | --wheels | --data-dir | --out-archive)
        (($# > 1)) || refuse "$1: expected a value"
        case $1 in
        --deadline) deadline=$2 ;;
        --stages) stages=$2 ;;
        --wheels) wheels=$(cd "$2" && pwd) || refuse "--wheels $2: expected a folder" ;;
        --data-dir) data_dir=$(cd "$2" && pwd) || refuse "--data-dir $2: expected a folder" ;;
        --out-archive)
            mkdir -p "$(dirname "$2")" && archive=$(cd "$(dirname "$2")" && pwd)/$(basename "$2") ||
                refuse "--out-archive $2: its folder cannot be made"
            ;;
        esac
        shift
        ;;
    -*) refuse "$1: expected --dry-run, --deadline, --stages, --wheels, --data-dir or --out-archive" ;;
    *) out=$1 ;;
    esac
    shift
done
[[ $deadline =~ ^[0-9]+$ ]] || refuse "--deadline $deadline: expected seconds"
[[ $stages ]] || stages=$([[ $dry ]] && echo $known || echo ${known/train,probe,tests,many,convolution,/})
for name in ${stages//,/ }; do
    [[ ,$known, == *,$name,* ]] || refuse "--stages $name: expected ${known//,/, }"
done

out=${out:-$root/benchmarks/results/gpu-$(date +%F)}
mkdir -p "$out" || refuse "$out: cannot be made"
out=$(cd "$out" && pwd)
[[ $archive == "$out"/* ]] && refuse "--out-archive $archive: expected a file outside of $out"
cd "$root" || exit 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
ulimit -c 0               # a process on a GPU that is aborted would write gigabytes
export PYTHONUNBUFFERED=1 # who runs out of time has said where it was
failed=0 stop=TERM alone=--foreground

# background FILE COMMAND...: runs the command with its output in the file, and waits for it. The
# command has its own process group: so a signal to this script does not reach it, and finds the
# script waiting, so that the trap runs at once.
background() {
    local file=$1 pid status
    shift
    set -m
    "$@" >"$file" 2>&1 &
    pid=$!
    set +m
    wait "$pid"
    status=$?
    kill -KILL -- "-$pid" 2>/dev/null # what it has left behind
    return $status
}

# Writes all results so far, first under another name, so that the archive is always complete.
write_archive() {
    [[ $archive ]] || return 0
    tar -czf "$archive.tmp" -C "${out%/*}" "${out##*/}" 2>/dev/null
    (($? < 2)) && mv -f "$archive.tmp" "$archive" # 1: a file changed meanwhile
}

measured() {
    compgen -G "$out/train_step-*.jsonl" || compgen -G "$out/matmul.jsonl" ||
        compgen -G "$out/mnist.json" || compgen -G "$out/estimators.jsonl" ||
        compgen -G "$out/many*.jsonl" || compgen -G "$out/convolution*.jsonl"
} >/dev/null

# report SECONDS: prints the table and the targets, and writes them to summary.txt.
report() {
    local status
    echo
    background "$out/summary.txt" timeout --foreground --kill-after=1 "$1" \
        "$python" -m benchmarks.gpu_report "$out"
    status=$?
    cat "$out/summary.txt"
    return $status
}

# interrupted SIGNAL NUMBER: ends the running stage, which writes what it has.
interrupted() {
    local pid running
    trap '' TERM INT
    echo "INTERRUPTED by SIG$1 after $SECONDS s, stage $current"
    jobs -pr >"$work/jobs"
    mapfile -t running <"$work/jobs"
    for pid in "${running[@]}"; do kill "-$stop" "$pid" 2>/dev/null; done
    for ((i = 0; i < 15; i++)); do
        jobs -pr >"$work/jobs"
        [[ -s $work/jobs ]] || break
        sleep 0.1
    done
    for pid in "${running[@]}"; do kill -KILL -- "-$pid" 2>/dev/null; done
    write_archive
    measured && report 2
    write_archive
    [[ $archive ]] && echo "wrote $archive"
    exit $((128 + $2))
}
current=start
# From here on, use command substitution only in other processes: bash 5.2 cannot parse a trap
# while it waits for one, and then continues somewhere else.
trap 'interrupted TERM 15' TERM
trap 'interrupted INT 2' INT

if [[ $wheels ]]; then
    background "$work/pip.txt" "$python" -m pip install --quiet --disable-pip-version-check \
        --no-index --no-deps --target "$work/packages" "$wheels"/*.whl ||
        { cat "$work/pip.txt" && refuse "--wheels $wheels: pip could not unpack them"; }
    PYTHONPATH=$PYTHONPATH:$work/packages
fi

# stage GROUP NAME LEAST MOST COMMAND...: runs the command for at most MOST seconds and the time
# that is left, with its output in NAME.txt. Then the signal $stop ends the command. Only the
# command itself gets it, unless $alone is empty, since benchmarks end their own workers. With less
# than LEAST seconds, the stage is not worth starting. $kept seconds stay for later, more important
# stages, and 10 for the report and for a stage that does not end at once.
kept=0
stage() {
    local group=$1 name=$2 least=$3 most=$4 left=$((deadline - 10 - kept - SECONDS)) status
    local began=$SECONDS
    shift 4
    [[ ,$stages, == *,$group,* ]] || return 0
    rm -f "$out/$name.jsonl" "$out/$name.json" # an earlier run's would pass for this one's
    if ((left < least)); then
        echo "$name: LEFT OUT, it needs some $least s and $left are left"
        return 0
    fi
    current=$name
    background "$out/$name.txt" timeout $alone --signal="$stop" --kill-after=5 \
        "$((left < most ? left : most))" "$@"
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
    write_archive
}

# steps GROUP NETWORK LEAST MOST: measures the contenders of a network side by side.
steps() {
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

# Draws all pictures in parallel, since each needs seconds to import its libraries.
pictures() {
    local file name status=0 drawing=()
    for file in "$out"/train_step-*.jsonl "$out/matmul.jsonl"; do
        [[ -s $file ]] || continue
        name=$(basename "$file" .jsonl)
        "$python" -m benchmarks.pictures "$file" "$out/$name" &
        drawing+=($!)
    done
    for file in "${drawing[@]}"; do wait "$file" || status=1; done
    return $status
}
export -f environment pictures
export root python dry out

# with_data STAGE: whether a stage that needs the MNIST files can run; reports it if not.
with_data() {
    [[ ,$stages, == *,$1,* ]] || return 1
    [[ $data_dir || $dry ]] || { echo "$1: LEFT OUT, it needs --data-dir" && return 1; }
}

# The seconds that the stage estimators takes at the end; 0 if it cannot run.
last=0
if [[ ,$stages, == *,estimators,* ]]; then
    if "$python" -c 'import sklearn' 2>/dev/null; then
        last=60
    else
        echo "estimators: LEFT OUT, scikit-learn is not installed"
    fi
fi

data=()
[[ $data_dir ]] && data=(--data-dir "$data_dir")
stage environment environment 1 30 bash -c environment

# -- In order? -------------------------------------------------------------------------

if with_data train; then
    training=(--device cuda --dataset mnist "${data[@]}" --hidden 50 --activation sigmoid
        --optimizer sgd --lr 0.1 --schedule constant --batch-size 100 --epochs 3)
    [[ $dry ]] && training=(--device cpu --hidden 8 --epochs 1)
    # SIGABRT makes Python write where it hangs.
    stop=ABRT stage train train 5 25 "$python" -X faulthandler -m xpnet.train "${training[@]}" \
        --out "$work/train"
fi

simulator=$root/tests/simulator:$PYTHONPATH
if [[ $dry ]]; then
    # Status 1 means that checks failed, as a few must without a GPU.
    PYTHONPATH=$simulator stage probe probe 1 90 bash -c '"$python" -m benchmarks.gpu_probe "$out" \
        --networks 20-6-3/8 --steps 20 --chain 2 --stacks 2 --mega 6x64 \
        --images cnn --images-batch 2 --images-size 12; (($? < 2))'
else
    stage probe probe 5 50 "$python" -m benchmarks.gpu_probe "$out"
fi

# SIGINT makes pytest print its failures so far, and at once if xdist's processes get it too. -v
# prints a line for each test, in case even that fails.
if [[ $dry ]]; then
    PYTHONPATH=$simulator XPNET_NEED_GPU=1 stop=INT alone='' stage tests tests 1 60 "$python" \
        -m pytest -v -p no:cacheprovider -m gpu --tb=short -rfE tests/gates/test_gates.py
else
    # On a fresh machine, the tests spend most of their time compiling CuPy's kernels, so they run
    # in parallel. The ignored files have no test for a GPU and would import PyTorch fourteen times.
    # pytest loads only the plugin pytest-xdist, since a warning of another plugin is an error.
    side_by_side=()
    "$python" -c 'import xdist' 2>/dev/null && side_by_side=(-p xdist -n 14)
    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 CUPY_NVRTC_USE_PCH=1 XPNET_NEED_GPU=1 stop=INT alone='' \
        stage tests tests 10 60 "$python" \
        -m pytest -v -p no:cacheprovider -m gpu --continue-on-collection-errors --tb=short -rfE \
        "${side_by_side[@]}" --ignore tests/backend/test_captured.py \
        --ignore tests/benchmarks/test_benchmarks.py tests
fi

# -- Times: the most important first, xpnet before the others --------------------------

if [[ $dry ]]; then
    how=(--rounds 2 --seconds 0.001 --only "xpnet numpy" "xpnet numpy one by one")
    stage many many 1 60 "$python" -m benchmarks.many --networks 12-5-3/4 --models 2 1 \
        "${how[@]}" --out "$out/many.jsonl"
    stage convolution convolution 1 60 "$python" -m benchmarks.convolution --networks tiny \
        --shapes tiny --rounds 2 --seconds 0.001 --only "xpnet numpy" "book formulas" \
        --out "$out/convolution.jsonl"
    how=(--rounds 2 --seconds 0.001 --only "xpnet numpy" "book loop" "floor numpy")
    steps float32 12-5-3/4 1 60
    stage matmul matmul 1 60 "$python" -m benchmarks.matmul --quick --sizes 8 16 --devices cpu \
        --dtypes float32 --libraries numpy --rounds 1 --seconds 0.0005 --out "$out/matmul.jsonl"
    stage pictures pictures 2 30 bash -c pictures
    how=(--rounds 2 --seconds 0.001 --only "xpnet numpy" "book loop")
    steps compile 12-5-3/4 1 60
    ((last)) && stage estimators estimators 1 60 "$python" -m benchmarks.estimators --quick \
        --cases iris --dtypes float32 --rounds 1 --seconds 0.001 --out "$out/estimators.jsonl"
else
    # First what was predicted: S, 64 networks and one. xpnet comes before the others in both.
    how=(--device cuda --rounds 7 --seconds 0.1 --limit 40 "${data[@]}")
    stage many many 20 65 "$python" -m benchmarks.many --networks S --models 64 1 16 256 \
        "${how[@]}" --only "xpnet cupy" "xpnet cupy one by one" "jax vmap" --out "$out/many.jsonl"
    stage many many-rest 20 55 "$python" -m benchmarks.many --networks 20-32-2/32 S \
        --models 64 1 16 256 1024 4 "${how[@]}" --rounds 5 --out "$out/many-rest.jsonl"
    # xpnet first. On a fresh machine, the first imports read gigabytes, so the limit is higher.
    how=(--device cuda --rounds 5 --seconds 0.1 "${data[@]}")
    stage convolution convolution 25 75 "$python" -m benchmarks.convolution \
        --networks SimpleConvNet --limit 60 "${how[@]}" --out "$out/convolution.jsonl"
    stage convolution convolution-deep 20 60 "$python" -m benchmarks.convolution \
        --networks DeepConvNet --limit 40 "${how[@]}" --out "$out/convolution-deep.jsonl"
    gpu=(--device cuda --rounds 7 --seconds 0.2 "${data[@]}")
    targets=("xpnet cupy" "pytorch eager" "floor torch" "jax scan" "jax scan unroll 4"
        "pytorch graph")
    # On a fresh machine, the first imports read gigabytes, so the limit is higher.
    how=("${gpu[@]}" --precisions float32 --limit 100 --only "${targets[@]}" "xpnet cupy unfused"
        "xpnet torch" "xpnet jax" "jax step")
    steps float32 S 30 220
    how=("${gpu[@]}" --precisions float32 --limit 40 --only "${targets[@]}" "xpnet torch"
        "xpnet jax")
    for network in M L D; do steps float32 "$network" 20 60; done
    # Keep time for the last stages; PyTorch's compiler on S has its own target.
    kept=$last
    [[ ,$stages, == *,compile,* ]] && kept=$((last + 75))
    with_data mnist && stage mnist mnist 15 60 "$python" -m benchmarks.mnist --device cuda \
        "${data[@]}" --limit 30 --out "$out/mnist.json"
    how=("${gpu[@]}" --precisions tf32 --limit 40 --only "${targets[@]}" "xpnet torch" "xpnet jax")
    for network in S L M D; do steps tf32 "$network" 20 50; done
    stage matmul matmul 30 70 "$python" -m benchmarks.matmul --quick --sizes 64 256 1024 \
        --batches 1 16 --devices cuda --libraries cublas torch jax cupy --limit 30 \
        --dtypes float32 tf32 bfloat16 float16 --baseline "cublas cuda" --out "$out/matmul.jsonl"
    stage pictures pictures 3 20 bash -c pictures
    kept=$last
    how=("${gpu[@]}" --precisions float32 --limit 120 --only "xpnet cupy" "pytorch compile")
    for network in S M L D; do steps compile "$network" 40 140; done
    kept=0
    ((last)) && stage estimators estimators 20 "$last" "$python" -m benchmarks.estimators \
        --device cuda --dtypes float32 --rounds 5 --limit 40 "${data[@]}" \
        --out "$out/estimators.jsonl"
fi

current=report
# The first call has no times.
if [[ $stages =~ many|convolution|float32|mnist|tf32|matmul|compile|estimators ]] || measured; then
    report 4 || failed=1
fi
write_archive
[[ $archive ]] && echo "wrote $archive"
exit $failed
