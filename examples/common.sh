# common.sh - what the examples' `run` scripts share: options, places, steps
#
# Sourced by each with its own arguments, after `name` (its folder) and `about` are set. Afterwards
# the current folder is the project's root, $out the folder of the results, $nimbus the tool, and
# $quick is empty or not. A script defines sources(), which says where the data come from, and calls
# `need` before anything else.

usage() {
    cat <<END_USAGE
usage: examples/$name/run [--quick] [--out DIR]

$about

  --quick    few rows, few epochs: shows that everything works, and nothing else
  --out DIR  where results go (build/examples/$name; there quick, with --quick)

Whatever is in DIR already is kept; delete it to make it again. Data are looked for in \$NIMBUS_DATA
or, where that is not set, in ../shared/data and data of the project. \$NIMBUS names the tool, if it
is not build/nimbus.
END_USAGE
}

die() { # message [exit code]
    echo "$name: $1" >&2
    exit "${2:-1}"
}

absolute() { # of a path that may begin where the script was started
    case $1 in
    /*) printf '%s' "$1" ;;
    *) printf '%s/%s' "$start" "$1" ;;
    esac
}

start=$PWD
quick='' out=''
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=yes ;;
    --out)
        [ $# -gt 1 ] || die "--out needs a folder" 2
        shift
        out=$(absolute "$1")
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) die "unknown option '$1'; --help says what there is" 2 ;;
    esac
    shift
done
[ -z "${NIMBUS_DATA:-}" ] || NIMBUS_DATA=$(absolute "$NIMBUS_DATA")
[ -z "${NIMBUS:-}" ] || NIMBUS=$(absolute "$NIMBUS")
cd "$(dirname "$0")/../.."
nimbus=${NIMBUS:-build/nimbus}
out=${out:-build/examples/$name${quick:+/quick}}

# Prints a command as it can be typed, and runs it.
show() {
    printf '\n$'
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./:=,+@%-]* | '') printf " '%s'" "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$@"
}

# make_file FILE COMMAND...: runs the command unless the file that it writes is there.
make_file() {
    file=$1
    shift
    if [ -e "$file" ]; then
        printf '\n%s is there and kept\n' "$file"
    else
        show "$@"
    fi
}

# need PATH...: finds the folder that holds them all, $data; without one says where to get them.
# Then makes sure of the tool and of $out.
need() {
    data=''
    for place in "${NIMBUS_DATA:-../shared/data}" "${NIMBUS_DATA:-data}"; do
        for path in "$@"; do
            [ -e "$place/$path" ] || continue 2
        done
        data=$place
        break
    done
    if [ -z "$data" ]; then
        {
            echo "$name: data are missing. Expected in ${NIMBUS_DATA:-../shared/data or data}:"
            printf '  %s\n' "$@"
            sources
        } >&2
        exit 1
    fi
    [ -n "${NIMBUS:-}" ] || [ -x "$nimbus" ] || show make
    [ -x "$nimbus" ] || die "there is no tool $nimbus"
    mkdir -p "$out"
    export NIMBUS_DATA="$data"
    printf 'data: %s, results: %s\n' "$data" "$out"
}
