"""What the handles of a test speak. A test without a mark runs on both wires."""

import pytest

#: Its peer is a plain socket that speaks the original's wire, or it is about that wire.
ORIGINAL = pytest.mark.wires("net.async")
#: It is about ours.
OURS = pytest.mark.wires("netasync")
