#!/bin/sh
# Every check that needs a GPU, in one go and in under five minutes; prints a table to paste. Rows without a GPU say so.
#   sh benchmarks/gpu.sh
cd "$(dirname "$0")/.." && exec "${PYTHON:-python}" -m benchmarks.gpu "$@"
