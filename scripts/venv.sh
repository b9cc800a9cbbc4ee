# Sourced by the other scripts, with `root` (the checkout) and `lock` (runtime or test) set. Afterwards `$venv` holds
# what scripts/$lock.lock names. If it does already that costs a few milliseconds: one comparison with the stamp that
# prepare.py writes last (it names the checkout, too: a moved .venv does not work). All else is done in prepare.py.

me=scripts/${0##*/}
venv=$root/.venv

# Sets `python` to one that really runs, is CPython 3.11 or newer and can make environments. Shims that only look like
# a Python (pyenv) and Debian's python3 without python3-venv are passed over while a better one is on the path.
find_python() {
    seen=
    for name in python3 python3.13 python3.12 python3.11 python3.14 python; do
        command -v "$name" >/dev/null 2>&1 || continue
        verdict=$("$name" "$root/scripts/suits.py" 2>/dev/null) || verdict="does not run"
        if [ "$verdict" = ok ]; then
            python=$name
            return 0
        fi
        seen="$seen${seen:+, }$name $verdict"
    done
    case $seen in
        *"-venv"*) why="the Python at hand cannot make virtual environments: $seen" ;;
        ?*) why="needs Python 3.11 or newer, and found only: $seen" ;;
        *) why="needs Python 3.11 or newer, and found none on the path" ;;
    esac
    echo "$me: $why" >&2
    return 1
}

if ! [ -x "$venv/bin/python" ] ||
    ! { echo "$root" && cat "$root/scripts/$lock.lock"; } | cmp -s - "$venv/$lock.stamp"; then
    find_python || exit 1
    "$python" -I "$root/scripts/prepare.py" "$me" "$root" "$lock" || exit
fi
