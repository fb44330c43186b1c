#!/usr/bin/env bash
# Every test hides the machine's GPUs (tests/CMakeLists.txt) unless a label says that it is for them:
#   gpus_hidden_test.sh CTEST BUILD_FOLDER
set -euo pipefail

seen="$("$1" --test-dir "$2" --show-only=json-v1 | awk '
  /^      "name" : / { name = $3; hidden = 0 }
  /"CUDA_VISIBLE_DEVICES=set:-1"|"gpu"|"sees_gpu"/ { hidden = 1 }
  /^    }/ { if (name != "" && name !~ /_NOT_BUILT/ && !hidden) print name; if (name != "") ++tests; name = "" }
  END { if (tests == 0) print "no test found" }')"
[ -z "$seen" ] && exit 0
echo "these tests see the machine's GPUs; give them the properties MEZZO_HIDE_GPUS, or the label gpu or sees_gpu:" >&2
echo "$seen" >&2
exit 1
