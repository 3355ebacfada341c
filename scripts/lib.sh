# shellcheck shell=bash
# Shared by the scripts in this folder: where things live, and how progress and failure are said.
# Source it after `set -euo pipefail`.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Outputs of this checkout (git-ignored).
# shellcheck disable=SC2034 # read by the scripts that source this file
BUILD=$ROOT/build
# What was fetched, shared by every checkout of this user.
# shellcheck disable=SC2034
CACHE=${COALESCE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/coalesce}

# say WHAT...: one line of progress, on standard error so that results stay alone on standard output.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# die WHAT...: one line that names the trouble and what to do, then exit status 1.
die() {
	say "error: $*"
	exit 1
}

# usage_error WHAT...: exit status 2.
usage_error() {
	say "$* (see ${0##*/} --help)"
	exit 2
}

# installed PACKAGE: whether Debian's package is installed and configured.
installed() { [[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]; }

# need_root WHY: installing packages takes root.
need_root() { [[ $(id -u) == 0 ]] || die "$1 needs root; run as root, or install it yourself"; }

# apt_get ARGS...: apt-get without questions; it waits for another apt to finish, tries again when the network fails,
# and shows its output only when it fails.
apt_get() {
	local log
	log=$(mktemp)
	if ! DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
		-o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 </dev/null; then
		cat "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
}

# apt_update: fetches the package lists, once per run of the calling script and its children.
apt_update() {
	[[ -z ${COALESCE_APT_UPDATED:-} ]] || return 0
	say "updating the package lists"
	need_root "apt-get update"
	apt_get update || die "apt-get update failed: check the network and /etc/apt/sources.list*"
	export COALESCE_APT_UPDATED=1
}

# with_lock NAME: holds CACHE/NAME.lock until the script ends, so that two checkouts do not fill the cache at once.
with_lock() {
	mkdir -p "$CACHE"
	exec {LOCK_FD}>"$CACHE/$1.lock"
	flock "$LOCK_FD"
}
