#!/usr/bin/env bash
# The tests of stores with Icechunk 2 and rioxarray 0.23, which need Python 3.12, in an environment of their own.
# Where there is no such Python, or its packages cannot be had, it says so, and is no failure, unless NEWER=required.
set -euo pipefail
cd "$(dirname "$0")/.."
not_run() {
    echo "newer.sh: not run, as $1"
    [ "${NEWER:-}" != required ]
    exit
}
python=""
for name in python3.14 python3.13 python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python python3; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    not_run "there is no Python 3.12 or newer here ($(python3 --version)): Icechunk 2 and rioxarray 0.23 need it"
fi
where=${NEWER_VENV:-.venv-newer}
"$python" -m venv "$where"
"$where/bin/python" -m pip install --quiet --disable-pip-version-check \
    icechunk==2.3.0 rioxarray==0.23.0 rasterio==1.5.2 xarray==2026.9.0 zarr==3.4.2 \
    rasterix zarr-cm dask distributed pystac-client stackstac scipy safetensors onnxruntime filelock packaging psutil \
    fsspec tqdm rich rich-argparse shtab jsonschema hypothesis pytest pytest-timeout || not_run "its packages could not be installed"
# what infers needs torch, and stays with `make test`
PYTHONPATH=$PWD "$where/bin/python" -m pytest -q -p no:cacheprovider tests/store/test_geozarr.py \
    tests/store/test_overviews.py -k "not stream and not probabilities and not command and not killed and not begun"
