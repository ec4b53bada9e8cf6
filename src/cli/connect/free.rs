//! A conversation out of step: what arrives is printed when it arrives, what is typed is sent when it is typed.

use std::io::Write;

use super::super::exit::Failure;
use super::{Input, Link, Prompt, Screen, closed, lost};

/// Talks until one side leaves. When the lines end without a `q`, what is still on its way is waited for.
pub(super) fn visit(
    peer: &mut impl Link,
    prompt: &mut Prompt,
    screen: &mut Screen<impl Write>,
) -> Result<(), Failure> {
    loop {
        match prompt.next()? {
            Input::Line(line) => peer.send(&line).map_err(lost)?,
            Input::Arrived => {
                if !show(peer, screen)? {
                    return Err(closed());
                }
            }
            Input::Quit => return Ok(()),
            Input::End => {
                peer.finish().map_err(lost)?;
                while show(peer, screen)? {}
                return Ok(());
            }
        }
    }
}

/// Prints what has arrived; false once the peer has closed.
fn show(peer: &mut impl Link, screen: &mut Screen<impl Write>) -> Result<bool, Failure> {
    loop {
        let Some(bytes) = peer.arrival().map_err(lost)? else {
            return Ok(false);
        };
        screen.write(&bytes)?;
        if !peer.buffered() {
            break;
        }
    }
    screen.settle()?;
    Ok(true)
}
