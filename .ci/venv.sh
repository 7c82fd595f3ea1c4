# Sourced: makes the virtual environment .venv in the repository, whatever the machine lacks for it.

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# apt_install PACKAGE...: on Debian and Ubuntu; elsewhere it says what is missing.
apt_install() {
    if ! command -v apt-get >/dev/null; then
        echo "Please install: $*" >&2
        return 1
    fi
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

# Where Python is told to write no bytecode, each of the many that the tests start reads all sources anew,
# and takes three times as long to begin.
unset PYTHONDONTWRITEBYTECODE

if [ ! -x .venv/bin/pip ]; then
    # Debian and Ubuntu ship python3 without what `python3 -m venv` needs.
    python3 -c "import ensurepip, venv" 2>/dev/null || apt_install python3-venv
    rm -rf .venv
    python3 -m venv .venv
fi
