//! What was decided about the first fragment of a packet, for the fragments that follow it.
