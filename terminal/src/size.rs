//! How large a terminal is.
use std::os::fd::AsFd;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: usize,
    /// Characters of a line.
    pub columns: usize,
}

/// The size of the terminal that this output goes to. `None` if it goes elsewhere, or if the terminal does not know its size.
pub fn size(output: impl AsFd) -> Option<Size> {
    let size = rustix::termios::tcgetwinsize(output).ok()?;
    let size = Size { rows: size.ws_row.into(), columns: size.ws_col.into() };
    (size.rows > 0 && size.columns > 0).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn what_is_no_terminal_has_no_size() {
        let (_reader, writer) = std::io::pipe().unwrap();
        assert_eq!(size(writer), None);
    }
}
