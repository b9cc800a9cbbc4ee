# Sourced by scripts that start the sidecar, with `root` and `me` set: what scripts/compile made comes before the
# sources, unless those have been changed since, or this Python is another one (then the copies there run as sources).

if [ -f "$root/build/compiled/stamp" ]; then
    if [ -z "$(find "$root/proxy" -name '*.py' -newer "$root/build/compiled/stamp" | head -n 1)" ]; then
        PYTHONPATH=$root/build/compiled${PYTHONPATH:+:$PYTHONPATH}
        export PYTHONPATH
    else
        echo "$me: the sources are newer than what was compiled, so they run as they are (scripts/compile)" >&2
    fi
fi
