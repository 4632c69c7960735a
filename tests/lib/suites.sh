# shellcheck shell=bash
# Runs suites one after another and adds up what passed and failed. Sourced by ./run.
#
# A suite that cannot be built, or whose runner ends without its report, counts as one failed test: it may not
# vanish from the sum. Suites run in a process group of their own; when ./run is told to end it tells the group,
# and pytest then stops the servers that it started.

passed=0 failed=0 skipped=0
failures=()
child=''

suite_begin() {
    rm -rf .run/reports
    mkdir -p .run/reports .run/log
    trap 'stop_child; exit 130' INT
    trap 'stop_child; exit 143' TERM HUP
    started=$SECONDS
}

suite_end() {
    local name
    for name in "${failures[@]}"; do
        printf 'FAILED %s\n' "$name"
    done
    printf 'took %d s\n' $((SECONDS - started))
    [ $((passed + failed)) -gt 0 ] || die "no test has '$filter' in its name"
    printf '%d passed, %d failed%s\n' "$passed" "$failed" \
        "$([ "$skipped" -eq 0 ] || printf ', %d skipped' "$skipped")"
    [ "$failed" -eq 0 ]
}

# Interrupts the running suite, waits for it to clean up, and kills what is left of its group.
stop_child() {
    trap '' INT TERM HUP
    [ -n "$child" ] || return 0
    kill -INT -- "-$child" 2>/dev/null || return 0
    local tenth
    for tenth in {1..300}; do
        kill -0 -- "-$child" 2>/dev/null || return 0
        sleep 0.1
    done
    : "$tenth"
    kill -KILL -- "-$child" 2>/dev/null || true
}

# Runs a command in its own process group. Its exit status is ours.
in_group() {
    local status=0
    set -m
    "$@" </dev/null &
    child=$!
    set +m
    wait "$child" || status=$?
    child=''
    return "$status"
}

count_failure() {
    failed=$((failed + 1))
    failures+=("$1")
}

# Adds a runner's JUnit report to the sums; STATUS is the runner's own exit status.
count_report() { # NAME REPORT STATUS
    local sums word rest_of_line
    if ! sums=$("$(find_python)" tests/lib/tally.py "$2"); then
        count_failure "$1: the runner ended with status $3 and left no report"
        return
    fi
    local before=$failed
    while read -r word rest_of_line; do
        case $word in
        passed) passed=$((passed + rest_of_line)) ;;
        skipped) skipped=$((skipped + rest_of_line)) ;;
        failed) count_failure "$1: $rest_of_line" ;;
        esac
    done <<<"$sums"
    if [ "$3" -ne 0 ] && [ "$before" -eq "$failed" ]; then
        count_failure "$1: the runner ended with status $3"
    fi
}

build_suite() { # FOLDER SANITIZER
    configure_and_build "$@" || count_failure "build of $1"
}

# Each tests/lint/check_* is one test; exit status 77 is a test skipped.
run_lints() {
    local check name status
    say lints
    for check in tests/lint/check_*; do
        name=$(basename "$check")
        name=lint.${name%.*}
        [[ $name == *"$filter"* ]] || continue
        status=0
        in_group env SIDRAIL_BUILD="$root/build" "$check" >".run/log/$name.log" 2>&1 || status=$?
        case $status in
        0)
            printf 'ok      %s\n' "$name"
            passed=$((passed + 1))
            ;;
        77)
            printf 'skipped %s\n' "$name"
            skipped=$((skipped + 1))
            ;;
        *)
            printf 'FAILED  %s\n' "$name"
            cat ".run/log/$name.log"
            count_failure "$name"
            ;;
        esac
    done
}

# Sanitizers of this age lose their way where the kernel spreads addresses wider than they knew.
without_random_addresses() { # FOLDER COMMAND...
    local folder=$1
    shift
    if [ "$folder" != build ] && setarch -R true 2>/dev/null; then
        in_group setarch -R "$@"
    else
        in_group "$@"
    fi
}

# Seconds that one integration test may take.
patience() { # FOLDER
    local seconds=180
    [ "$full" -eq 0 ] || seconds=900
    case $1 in
    build-address) seconds=$((seconds * 2)) ;;
    build-thread) seconds=$((seconds * 3)) ;;
    esac
    echo "$seconds"
}

run_unit() { # FOLDER
    local status=0 report=$root/.run/reports/unit-$1.xml labels=unit
    [ -f "$1/build.ninja" ] || return 0 # counted by build_suite
    [ "$1" != build ] || labels='unit|model' # the model is Python: once is enough
    say "unit tests and fuzz corpora: $1"
    without_random_addresses "$1" ctest --test-dir "$1" -L "$labels" -j "$jobs" --output-on-failure --no-tests=ignore \
        ${filter:+-R "$filter"} --output-junit "$report" || status=$?
    count_report "$1" "$report" "$status"
}

# Of tests/integration, or of the folder that `place` names. Most tests wait more than they compute: files run side by
# side, and then, by themselves, the tests that measure speed or processor time (marked `alone`). The full form
# runs everything by itself.
run_integration() { # FOLDER [MARK]
    local mark=${2:-}
    if [ "$full" -eq 1 ]; then
        run_pytest "$1" all "$mark"
    else
        run_pytest "$1" together "${mark:+$mark and }not alone" -n "$jobs" --dist loadfile
        run_pytest "$1" alone "${mark:+$mark and }alone"
    fi
}

run_pytest() { # FOLDER PART MARKS [PYTEST-OPTION...]
    local folder=$1 part=$2 marks=$3 status=0 report=$root/.run/reports/integration-$1-$2.xml
    shift 3
    say "integration tests: $folder, $part${marks:+ ($marks)}"
    without_random_addresses "$folder" env SIDRAIL_BUILD="$root/$folder" SIDRAIL_ENV="$environments" \
        "$environments/harness/bin/python" -m pytest -q -c tests/integration/pytest.ini \
        --rootdir "$root" -o "cache_dir=$root/.run/pytest" -o "timeout=$(patience "$folder")" "--junitxml=$report" \
        ${filter:+-k "$filter"} ${marks:+-m "$marks"} "$@" "${place:-tests/integration}" || status=$?
    [ "$status" -ne 5 ] || return 0 # no test of that name here
    count_report "$folder integration" "$report" "$status"
}

run_fuzzers() { # SECONDS
    local target parser seeds options
    for target in build-fuzz/tests/fuzz_*; do
        if ! [ -f "$target" ] || ! [ -x "$target" ]; then continue; fi
        parser=${target##*/fuzz_}
        [[ fuzz.$parser == *"$filter"* ]] || continue
        say "fuzz: $parser, $1 s"
        mkdir -p ".run/fuzz/$parser" ".run/fuzz/found"
        seeds=(".run/fuzz/$parser")
        [ ! -d "tests/fuzz/corpus/$parser" ] || seeds+=("tests/fuzz/corpus/$parser")
        options=("-max_total_time=$1" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
            "-artifact_prefix=.run/fuzz/found/$parser-")
        [ ! -f "tests/fuzz/dict/$parser.dict" ] || options+=("-dict=tests/fuzz/dict/$parser.dict")
        if in_group "$target" "${options[@]}" "${seeds[@]}" >".run/log/fuzz-$parser.log" 2>&1; then
            grep -a 'stat::number_of_executed_units' ".run/log/fuzz-$parser.log" || true
            passed=$((passed + 1))
        else
            tail -n 60 ".run/log/fuzz-$parser.log"
            count_failure "fuzz.$parser (inputs in .run/fuzz/found)"
        fi
    done
}
