//! Any text as the description of a frame.

use kopi_packet::{describe, parse};

/// What is understood is a frame that is printed in words which are understood too, and mean a frame of the same flow. What
/// is not understood is answered in one line that is fit for a terminal.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match describe::frame_of(text) {
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.contains(char::is_control), "{text:?}: {said:?}");
        }
        Ok(frame) => {
            let key = parse(&frame, 1).1;
            let printed = key.to_string();
            let again = describe::frame_of(&printed).unwrap_or_else(|error| panic!("{text:?}: {printed:?}: {error}"));
            assert_eq!(parse(&again, 1).1.to_string(), printed, "{text:?}");
        }
    }
}
