//! A recursive-descent parser of CEL's grammar. It counts its depth where the grammar nests and loops where the grammar
//! repeats.
//!
//! Source: google/cel-go `parser/gen/CEL.g4` and `parser/parser.go`. Arithmetic, conditions, macros, maps, messages and
//! optional syntax are parsed but not supported: their contents are dropped, so it does not matter if a macro's
//! variable shadows `device`.
use super::term::{self, Kind, Term, Typed};
use super::tokens::{Token, Tokens, Unreadable};
use super::tree::{Comparison, Expression};

/// The maximum depth of nested brackets. Each level takes seven calls.
const DEEPEST: u8 = 64;

/// These are not identifiers; `in`, `true`, `false` and `null` are tokens of the grammar.
const RESERVED: [&str; 18] = [
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Parses a whole expression.
pub(super) fn read(text: &str) -> Result<Expression, Unreadable> {
    let mut tokens = Tokens::new(text);
    let mut grammar = Grammar { next: tokens.next()?, tokens, depth: 0, patterns: 0 };
    let tree = grammar.expression()?.value().into_tree();
    if grammar.next == Token::End { Ok(tree) } else { Err(Unreadable) }
}

struct Grammar<'a> {
    tokens: Tokens<'a>,
    next: Token<'a>,
    depth: u8,
    patterns: u8,
}

impl<'a> Grammar<'a> {
    fn expression(&mut self) -> Result<Term, Unreadable> {
        if self.depth == DEEPEST {
            return Err(Unreadable);
        }
        self.depth += 1;
        let mut term = self.any()?;
        if self.skip("?")? {
            self.any()?;
            self.expect(":")?;
            self.expression()?;
            term = Term::undecided();
        }
        self.depth -= 1;
        Ok(term)
    }

    fn any(&mut self) -> Result<Term, Unreadable> {
        self.chain("||", Self::all, Expression::Any)
    }

    fn all(&mut self) -> Result<Term, Unreadable> {
        self.chain("&&", Self::relation, Expression::All)
    }

    fn chain(
        &mut self,
        operator: &str,
        part: fn(&mut Self) -> Result<Term, Unreadable>,
        node: fn(Vec<Expression>) -> Expression,
    ) -> Result<Term, Unreadable> {
        let first = part(self)?;
        if !self.skip(operator)? {
            return Ok(first);
        }
        let mut terms = vec![first, part(self)?];
        while self.skip(operator)? {
            terms.push(part(self)?);
        }
        Term::joined(terms, node)
    }

    fn relation(&mut self) -> Result<Term, Unreadable> {
        let mut left = self.sum()?;
        loop {
            let comparison = match self.next {
                Token::Symbol("==") => Some(Comparison::Equal),
                Token::Symbol("!=") => Some(Comparison::NotEqual),
                Token::Symbol("<") => Some(Comparison::Less),
                Token::Symbol("<=") => Some(Comparison::LessOrEqual),
                Token::Symbol(">") => Some(Comparison::Greater),
                Token::Symbol(">=") => Some(Comparison::GreaterOrEqual),
                Token::Word("in") => None,
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.sum()?;
            left = match comparison {
                Some(comparison) => left.compared(comparison, right)?,
                None => left.within(right)?,
            };
        }
    }

    /// Sums and products; their results are not supported.
    fn sum(&mut self) -> Result<Term, Unreadable> {
        let mut term = self.unary()?;
        while matches!(self.next, Token::Symbol("+" | "-" | "*" | "/" | "%")) {
            self.advance()?;
            self.unary()?;
            term = Term::undecided();
        }
        Ok(term)
    }

    fn unary(&mut self) -> Result<Term, Unreadable> {
        let mut is_negated = false;
        if self.next == Token::Symbol("!") {
            while self.skip("!")? {
                is_negated = !is_negated;
            }
            // Two negations cancel each other, as in CEL's own parser.
            let term = self.member()?;
            return if is_negated { term.not() } else { Ok(term) };
        }
        if !self.skip("-")? {
            return self.member();
        }
        if let Token::Int(magnitude) = self.next {
            self.advance()?;
            let value = 0_i64.checked_sub_unsigned(magnitude).ok_or(Unreadable)?;
            return self.members(Term::leaf(Kind::Int, Expression::Int(value)));
        }
        while self.skip("-")? {}
        self.member()?;
        Ok(Term::undecided())
    }

    fn member(&mut self) -> Result<Term, Unreadable> {
        let primary = self.primary()?;
        self.members(primary)
    }

    /// Parses what follows: `.name`, `[key]`, or the `{…}` of a message.
    fn members(&mut self, mut term: Term) -> Result<Term, Unreadable> {
        loop {
            if self.skip(".")? {
                let is_optional = self.skip("?")?;
                let name = self.word()?;
                if is_optional {
                    term = Term::undecided();
                } else if self.skip("(")? {
                    let arguments = self.listed(")")?;
                    term = term.call(name, arguments, &mut self.patterns)?;
                } else {
                    term = term.select(name);
                }
            } else if self.skip("[")? {
                let is_optional = self.skip("?")?;
                let key = self.expression()?;
                self.expect("]")?;
                term = if is_optional { Term::undecided() } else { term.index(key) };
            } else if matches!(term, Term::Foreign) && self.skip("{")? {
                self.entries(|grammar| grammar.word().map(drop))?;
                term = Term::undecided();
            } else {
                return Ok(term);
            }
        }
    }

    fn primary(&mut self) -> Result<Term, Unreadable> {
        Ok(match self.advance()? {
            Token::Int(value) => Term::leaf(Kind::Int, Expression::Int(value.try_into().map_err(|_| Unreadable)?)),
            Token::Text(text) => Term::leaf(Kind::Text, Expression::Text(text.into())),
            Token::Word("true") => Term::leaf(Kind::Bool, Expression::Bool(true)),
            Token::Word("false") => Term::leaf(Kind::Bool, Expression::Bool(false)),
            Token::Foreign | Token::Word("null") => Term::undecided(),
            Token::Word(name) => return self.named(name),
            Token::Symbol("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                inner
            }
            Token::Symbol("[") => self.list()?,
            Token::Symbol("{") => {
                self.entries(|grammar| grammar.expression().map(drop))?;
                Term::undecided()
            }
            // A name from the root; here, that is where all names are.
            Token::Symbol(".") => {
                let name = self.word()?;
                self.named(name)?;
                Term::undecided()
            }
            Token::Symbol(_) | Token::End => return Err(Unreadable),
        })
    }

    fn named(&mut self, name: &str) -> Result<Term, Unreadable> {
        if RESERVED.contains(&name) {
            return Err(Unreadable);
        }
        if !self.skip("(")? {
            return Ok(if name == "device" { Term::Device } else { Term::Foreign });
        }
        let mut arguments = self.listed(")")?;
        match (name, arguments.pop()) {
            ("has", Some(only)) if arguments.is_empty() => only.presence(),
            (_, last) => {
                arguments.extend(last);
                term::function(name, arguments)
            }
        }
    }

    fn list(&mut self) -> Result<Term, Unreadable> {
        let mut elements: Vec<Typed> = Vec::new();
        let mut is_optional = false;
        while !self.skip("]")? {
            is_optional |= self.skip("?")?;
            elements.push(self.expression()?.value());
            if !self.skip(",")? {
                self.expect("]")?;
                break;
            }
        }
        Ok(if is_optional { Term::undecided() } else { Term::List(elements) })
    }

    /// The arguments of a call, and its closing bracket.
    fn listed(&mut self, close: &str) -> Result<Vec<Term>, Unreadable> {
        let mut terms = Vec::new();
        if self.skip(close)? {
            return Ok(terms);
        }
        loop {
            terms.push(self.expression()?);
            if !self.skip(",")? {
                self.expect(close)?;
                return Ok(terms);
            }
        }
    }

    /// Keys and values, and the closing bracket.
    fn entries(&mut self, key: impl Fn(&mut Self) -> Result<(), Unreadable>) -> Result<(), Unreadable> {
        while !self.skip("}")? {
            self.skip("?")?;
            key(self)?;
            self.expect(":")?;
            self.expression()?;
            if !self.skip(",")? {
                return self.expect("}");
            }
        }
        Ok(())
    }

    /// A name after a `.`, which may be a reserved word.
    fn word(&mut self) -> Result<&'a str, Unreadable> {
        match self.advance()? {
            Token::Word(name) if !matches!(name, "in" | "true" | "false" | "null") => Ok(name),
            _ => Err(Unreadable),
        }
    }

    fn skip(&mut self, symbol: &str) -> Result<bool, Unreadable> {
        let is_here = matches!(self.next, Token::Symbol(next) if next == symbol);
        if is_here {
            self.advance()?;
        }
        Ok(is_here)
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Unreadable> {
        if self.skip(symbol)? { Ok(()) } else { Err(Unreadable) }
    }

    /// Returns the next token and advances.
    fn advance(&mut self) -> Result<Token<'a>, Unreadable> {
        let following = self.tokens.next()?;
        Ok(std::mem::replace(&mut self.next, following))
    }
}
