//! The tokenizer of CEL. Parses literals and their escapes.
//!
//! Source: google/cel-go `parser/gen/CEL.g4` (lexer rules) and `parser/unescape.go`. Identifiers in backticks are not
//! supported.

/// A token of the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An identifier or a keyword.
    Word(&'a str),
    /// An integer without its sign.
    Int(u64),
    Text(String),
    /// A literal of an unsupported type: a float, an unsigned integer, bytes.
    Foreign,
    Symbol(&'static str),
    End,
}

/// The text is not an expression, exceeds a limit or has a type error. It is undecided for every device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The rest of a text.
pub(super) struct Tokens<'a> {
    rest: &'a str,
}

/// Longer symbols precede their prefixes.
const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "+", "-", "*",
    "/", "%",
];

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// The next token; after the last one, [`Token::End`] every time.
    pub(super) fn next(&mut self) -> Result<Token<'a>, Unreadable> {
        self.skip_space();
        let Some(first) = self.rest.bytes().next() else { return Ok(Token::End) };
        let starts_fraction = first == b'.' && self.rest[1..].starts_with(is_digit);
        if first.is_ascii_digit() || starts_fraction {
            return self.number();
        }
        if let Some(literal) = self.literal() {
            return literal;
        }
        if first.is_ascii_alphabetic() || first == b'_' {
            return Ok(Token::Word(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')));
        }
        let symbol = SYMBOLS.into_iter().find(|symbol| self.rest.starts_with(symbol)).ok_or(Unreadable)?;
        self.rest = &self.rest[symbol.len()..];
        Ok(Token::Symbol(symbol))
    }

    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(['\t', ' ', '\r', '\n', '\u{c}']);
            let Some(comment) = self.rest.strip_prefix("//") else { return };
            self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
        }
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn number(&mut self) -> Result<Token<'a>, Unreadable> {
        let hex = self.rest.strip_prefix("0x").filter(|digits| digits.starts_with(|c: char| c.is_ascii_hexdigit()));
        let value = if let Some(digits) = hex {
            self.rest = digits;
            u64::from_str_radix(self.take_while(|c| c.is_ascii_hexdigit()), 16)
        } else {
            let digits = self.take_while(is_digit);
            if self.skip_fraction() {
                return Ok(Token::Foreign);
            }
            digits.parse()
        };
        if let Some(rest) = self.rest.strip_prefix(['u', 'U']) {
            self.rest = rest;
            return Ok(Token::Foreign);
        }
        value.map(Token::Int).map_err(|_| Unreadable)
    }

    /// Whether the digits continue as those of a float: `.5`, `e5`.
    fn skip_fraction(&mut self) -> bool {
        let before = self.rest.len();
        if let Some(fraction) = self.rest.strip_prefix('.').filter(|fraction| fraction.starts_with(is_digit)) {
            self.rest = fraction;
            self.take_while(is_digit);
        }
        if let Some(exponent) = self.rest.strip_prefix(['e', 'E']) {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.starts_with(is_digit) {
                self.rest = digits;
                self.take_while(is_digit);
            }
        }
        self.rest.len() < before
    }

    /// A string or bytes, if one starts here.
    fn literal(&mut self) -> Option<Result<Token<'a>, Unreadable>> {
        let unprefixed = self.rest.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let (is_bytes, is_raw) = match &self.rest[..self.rest.len() - unprefixed.len()] {
            "" => (false, false),
            "r" | "R" => (false, true),
            "b" | "B" => (true, false),
            "br" | "bR" | "Br" | "BR" => (true, true),
            _ => return None,
        };
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| unprefixed.starts_with(quote))?;
        self.rest = &unprefixed[quote.len()..];
        let content = self.content(quote, is_raw);
        Some(content.map(|text| if is_bytes { Token::Foreign } else { Token::Text(text) }))
    }

    /// The text before the closing quote.
    fn content(&mut self, quote: &str, is_raw: bool) -> Result<String, Unreadable> {
        let mut content = String::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix(quote) {
                self.rest = rest;
                return Ok(content);
            }
            let next = self.take()?;
            match next {
                '\\' if !is_raw => content.push(self.escaped()?),
                // CEL turns them into newlines; literals that contain one are so rare that they are not supported.
                '\r' => return Err(Unreadable),
                '\n' if quote.len() == 1 => return Err(Unreadable),
                _ => content.push(next),
            }
        }
    }

    /// The character that an escape represents, after its backslash.
    fn escaped(&mut self) -> Result<char, Unreadable> {
        let code = match self.take()? {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'v' => 0x0b,
            same @ ('"' | '\'' | '\\' | '?' | '`') => u32::from(same),
            'x' | 'X' => self.code(2, 16)?,
            'u' => self.code(4, 16)?,
            'U' => self.code(8, 16)?,
            first @ '0'..='3' => u32::from(first) % 8 * 64 + self.code(2, 8)?,
            _ => return Err(Unreadable),
        };
        char::from_u32(code).ok_or(Unreadable)
    }

    fn code(&mut self, digits: usize, radix: u32) -> Result<u32, Unreadable> {
        (0..digits).try_fold(0_u32, |code, _| {
            let digit = self.take()?.to_digit(radix).ok_or(Unreadable)?;
            Ok(code.wrapping_mul(radix).wrapping_add(digit))
        })
    }

    fn take(&mut self) -> Result<char, Unreadable> {
        let next = self.rest.chars().next().ok_or(Unreadable)?;
        self.rest = &self.rest[next.len_utf8()..];
        Ok(next)
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[Token]) {
        let mut tokens = Tokens::new(text);
        for token in expected {
            assert_eq!(tokens.next().as_ref(), Ok(token), "{text}");
        }
        assert_eq!(tokens.next(), Ok(Token::End), "{text}");
    }

    fn text(content: &str) -> [Token<'_>; 1] {
        [Token::Text(content.to_owned())]
    }

    #[test]
    fn strings_are_unescaped_as_cel_unescapes_them() {
        check(r#""a'b""#, &text("a'b"));
        check(r"'a\'b\\\n\x41\u00e9\U0001F600\101'", &text("a'b\\\nA\u{e9}\u{1f600}A"));
        check("'''a\n'b''c'''", &text("a\n'b''c"));
        check(r#""""a"b\t""""#, &text("a\"b\t"));
        check(r#"r"\d\""#, &text(r"\d\"));
        check("R'''\\\n'''", &text("\\\n"));
        check("''", &text(""));
        check("''''''", &text(""));
    }

    #[test]
    fn other_literals_are_told_apart() {
        check("0x1F 08 5", &[Token::Int(31), Token::Int(8), Token::Int(5)]);
        for foreign in
            ["1.5", ".5", "1e9", "1E-9", "1.5e+9", "7u", "0x7U", "b'x'", "bR\"\\\"", "99999999999999999999.0"]
        {
            check(foreign, &[Token::Foreign]);
        }
    }

    #[test]
    fn comments_and_spaces_stand_between_words() {
        let dot = Token::Symbol(".");
        check("a // b\n\t. // c\n_b1//", &[Token::Word("a"), dot, Token::Word("_b1")]);
        check("!=!<=<", &["!=", "!", "<=", "<"].map(Token::Symbol));
    }

    #[test]
    fn what_is_no_word_is_refused() {
        for broken in [
            "'",
            "\"a",
            "'a\n'",
            "'''a''",
            r"'\z'",
            r"'\x4'",
            r"'\u12'",
            r"'\ud800'",
            r"'\U00110000'",
            r"'\400'",
            r"'\08'",
            "'\r'",
            "`a`",
            "&",
            "|",
            "=",
            "#",
            "\u{e9}",
            "18446744073709551616",
            r"r'\''",
        ] {
            let mut tokens = Tokens::new(broken);
            let mut words = std::iter::from_fn(|| Some(tokens.next())).take_while(|token| *token != Ok(Token::End));
            assert!(words.any(|word| word.is_err()), "{broken}");
        }
    }
}
