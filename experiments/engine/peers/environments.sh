#!/bin/sh
# Makes one environment per peer, from pinned requirements:   sh environments.sh FOLDER [pfl|fluke ...]
# An environment is FOLDER/NAME. None of this is needed by fedimb: only by the bench beside peers.
set -e
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?give the folder that gets the environments}
shift
mkdir -p "$folder"
for name in ${*:-pfl fluke}; do
    "${PYTHON:-python3.11}" -m venv "$folder/$name"
    "$folder/$name/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements-$name.txt"
    "$folder/$name/bin/python" -c "import $name, torch; print('$name: ready, torch', torch.__version__)"
done
