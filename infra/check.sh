#!/usr/bin/env bash
# Build the images, start the stack from nothing, and use it: register the generators that the chain
# made, search one adapter on the worker, sample. Everything that was started is removed again.
#   infra/check.sh [DATA]      DATA: the folder `data` after `make demo`
set -Eeuo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
data=$(realpath "${1:-$root/data}")
cd "$root"
say() { printf 'check: [%4ds] %s\n' "$SECONDS" "$*" >&2; }
fail() { printf 'check: %s\n' "$*" >&2; exit 1; }

docker info >/dev/null 2>&1 || fail "no Docker engine answers: start one, or set DOCKER_HOST"
docker compose version >/dev/null 2>&1 || fail "docker has no compose plugin: install Compose 2.20 or later"
for part in derivatives split.json models/{2d,3d}/{base,adapted} reports; do
  [ -e "$data/$part" ] || fail "no $data/$part: run \`make demo\` first"
done

# A stack of its own next to one that may be in use: other names, a named volume, free ports.
export COMPOSE_PROJECT_NAME=dti-check DATA=data MLFLOW_PORT=0 SAMPLER_PORT=0
GIT_COMMIT=$(git rev-parse HEAD 2>/dev/null || echo unknown)
export GIT_COMMIT
compose() { docker compose --ansi never --progress quiet --file infra/compose.yaml "$@"; }
in_head() { compose exec -T ray-head "$@"; }
address() { echo "http://$(compose port "$1" "$2")"; }
scratch=$(mktemp -d)
finish() {
  local code=$?
  if [ $code != 0 ]; then
    compose ps --all >&2 || true
    compose logs --tail 30 >&2 || true
  fi
  compose down --volumes --timeout 10 >/dev/null 2>&1 || true
  rm -rf "$scratch"
  exit $code
}
trap finish EXIT

compose down --volumes >/dev/null 2>&1
say "building the images"
compose build --quiet mlflow ray-head # the sampler has the image of ray-head
say "starting the stack"
compose up --detach --wait --wait-timeout 600 --quiet-pull
say "all services are healthy"

tar --create --dereference --directory "$data" derivatives split.json models reports |
  in_head tar --extract --no-same-owner --directory data
say "registering the generators"
in_head python -m registry.register

say "searching: one trial of a few steps"
in_head python - <infra/check_params.py
in_head timeout 600 python -m training.search
in_head python - <<'PY'
from services.tracking import store

client = store.client()
experiments = [one.experiment_id for one in client.search_experiments()]
runs = client.search_runs(experiments, "tags.stage = 'trial' and attributes.status = 'FINISHED'")
assert len(runs) == 1, f"expected one finished trial in MLflow, found {len(runs)}"
distance = runs[0].data.metrics["val/regional_distance"]
print(f"MLflow on PostgreSQL has the trial: regional distance {distance:.4f}")
PY
# Ray writes the name of the actor into the log of the process that runs it.
ran_on() { compose exec -T "$1" sh -c 'grep -l "actor_name:ImplicitFunc" /tmp/ray/session_latest/logs/worker-*'; }
ran_on ray-worker >/dev/null || fail "the trial did not run on the worker"
if ran_on ray-head >/dev/null 2>&1; then fail "the trial ran on the head"; fi
say "the trial ran on the worker"

compose restart sampler
compose up --detach --wait --no-recreate sampler
sampler=$(address sampler 3000)
curl --silent --show-error --fail --retry 30 --retry-delay 2 --retry-all-errors "$sampler/readyz"
say "the sampler is ready"
for dim in 2d 3d; do
  curl --silent --show-error --fail --output "$scratch/$dim.nii.gz" \
    --data "dim=$dim" --data age=65 --data sex=F --data seed=1 --data steps=2 "$sampler/sample"
  in_head python -c '
import sys
import nibabel
import numpy as np
from models.adapters import adapted
from registry.champion import fetch_champion

dim = sys.argv[1]
image = nibabel.Nifti1Image.from_bytes(__import__("gzip").decompress(sys.stdin.buffer.read()))
space = adapted.load(fetch_champion(dim).folder).space
assert image.shape == tuple(space.shape), (image.shape, space.shape)
values = image.get_fdata()
assert np.isfinite(values).all() and values.max() > values.min(), "no picture"
print(f"{dim}: a volume of {image.shape}, FA {values.min():.3f} to {values.max():.3f}")
' "$dim" <"$scratch/$dim.nii.gz"
done
curl --silent --show-error --fail --output /dev/null "$(address mlflow 5000)/api/2.0/mlflow/experiments/get-by-name?experiment_name=synthetic-dti-maps"
say "done: up, healthy, registered, searched, sampled"
