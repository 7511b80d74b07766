"""The PCL kit's library; pcl_lib/README.md says what is where."""

import os
import signal
import sys

# A command of ours imports for seconds before `utils.exit_cleanly` can hear an interrupt: no traceback until then.
_ours = (
    sys.argv[:1] == ["-m"]
    or os.path.basename(os.path.dirname(os.path.abspath(sys.argv[0]))) == "data_scripts"
)
if _ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
