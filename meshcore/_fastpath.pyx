# The door: small classes between Python and the engine's rooms, one file per concept in `door/`.
# Converts arguments, drops the GIL, calls one verb. Holds no policy.

import os as _os

include "door/parser.pxi"
include "door/first_octets.pxi"
include "door/http2.pxi"
include "door/policy.pxi"
include "door/mechanism.pxi"
include "door/tls.pxi"
include "door/snapshot.pxi"
include "door/engine.pxi"
include "door/binding.pxi"
include "door/name.pxi"
include "door/counts.pxi"
include "door/tap.pxi"
include "door/filter.pxi"
