//! Writing one JSON object on one line: just what the event's JSON form needs.

use std::fmt::Write;

/// An object under construction.
pub(crate) struct Object {
    text: String,
    first: bool,
}

impl Object {
    /// Opens an object at the end of `text`.
    pub(crate) fn new(mut text: String) -> Self {
        text.push('{');
        Self { text, first: true }
    }

    /// Closes it and gives the whole text back.
    pub(crate) fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }

    fn key(&mut self, name: &str) {
        if !self.first {
            self.text.push(',');
        }
        self.first = false;
        quote(name, &mut self.text);
        self.text.push(':');
    }

    pub(crate) fn string(&mut self, name: &str, value: &str) {
        self.key(name);
        quote(value, &mut self.text);
    }

    pub(crate) fn optional(&mut self, name: &str, value: &Option<String>) {
        if let Some(value) = value {
            self.string(name, value);
        }
    }

    /// A value that is JSON text already. Between tokens a line break is only space, and inside a string JSON has none.
    pub(crate) fn raw(&mut self, name: &str, json: Option<&str>) {
        if let Some(json) = json {
            self.key(name);
            self.text.extend(json.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
        }
    }

    pub(crate) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.key(name);
        self.nested(fill);
    }

    pub(crate) fn array<T>(&mut self, name: &str, items: &[T], fill: impl Fn(&mut Self, &T)) {
        self.key(name);
        self.text.push('[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.text.push(',');
            }
            self.nested(|object| fill(object, item));
        }
        self.text.push(']');
    }

    fn nested(&mut self, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::new(std::mem::take(&mut self.text));
        fill(&mut inner);
        self.text = inner.end();
    }
}

/// A JSON string with quotes, escaped as RFC 8259 demands and no more.
fn quote(value: &str, out: &mut String) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String can't fail.
            c if c < ' ' => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_and_escapes() {
        let mut out = Object::new(String::new());
        out.string("a\"", "x\u{1}\n\\é");
        out.array("b", &[1, 2], |o, n| o.raw("n", Some(&n.to_string())));
        out.object("c", |_| {});
        out.raw("d", Some("[1,\n2]"));
        assert_eq!(out.end(), "{\"a\\\"\":\"x\\u0001\\n\\\\é\",\"b\":[{\"n\":1},{\"n\":2}],\"c\":{},\"d\":[1, 2]}");
    }
}
