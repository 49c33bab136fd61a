//! One document or one item of a list: an object, or itself a list of objects. Owns how its fields are handled while they are read:
//! the needed fields of an object that counts are kept, the items of a list are decoded one by one, everything else is skipped.
use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use mcad_accounting::object::needed::Needed::{self, Either, Fields, Whole};
use mcad_accounting::object::{self, Kind, Object, Served, UnreadableQuantity};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::record::{self, Record};
use super::{Dump, ItemError, Skipped, instant};

/// The most left-out objects that are named; a person reads no more. Further ones are counted.
const NAMED: usize = 1000;

/// Fields with times, for the instant of a dump.
const TIMES: &[(&str, Needed)] = &[
    ("metadata", Fields(&[("creationTimestamp", Whole), ("managedFields", Fields(&[("time", Whole)]))])),
    ("status", Fields(&[("conditions", Whole)])),
];

/// The needed metadata of an object whose kind is not known yet. All its other fields are kept.
const METADATA: Needed = Fields(&[
    ("name", Whole),
    ("namespace", Whole),
    ("uid", Whole),
    ("resourceVersion", Whole),
    ("labels", Whole),
    ("annotations", Whole),
    ("creationTimestamp", Whole),
    ("managedFields", Fields(&[("time", Whole)])),
]);

/// Receives what is read.
pub(super) struct Sink<'a> {
    dump: &'a mut Dump,
    file: &'a Path,
    /// The number of the document in the file, from 1.
    pub(super) document: usize,
    /// The line at which the document or the item begins.
    pub(super) line: usize,
    /// The index of the item in the outermost list, from 0.
    item: Option<usize>,
}

/// A decoded object, with facts from its text.
struct Decoded {
    object: Object,
    newest_ms: Option<i64>,
    unreadable: Vec<UnreadableQuantity>,
}

/// The state of a sink, for [`Sink::rewind`].
pub(super) struct Mark {
    objects: usize,
    skipped: usize,
    more_skipped: usize,
    of_kind: [usize; Kind::ALL.len()],
    records: usize,
    unreadable: usize,
    more_unreadable: usize,
}

impl<'a> Sink<'a> {
    pub(super) fn new(dump: &'a mut Dump, file: &'a Path) -> Self {
        Self { dump, file, document: 0, line: 1, item: None }
    }

    /// Starts a document at this line.
    pub(super) fn begin(&mut self, line: usize) {
        self.document += 1;
        self.line = line;
        self.item = None;
    }

    /// The document was empty, so it does not count.
    pub(super) fn was_empty(&mut self) {
        self.document -= 1;
    }

    pub(super) fn mark(&self) -> Mark {
        let Dump { objects, skipped, more_skipped, of_kind, records, unreadable, more_unreadable, .. } = &*self.dump;
        Mark {
            objects: objects.len(),
            skipped: skipped.len(),
            more_skipped: *more_skipped,
            of_kind: *of_kind,
            records: records.len(),
            unreadable: unreadable.len(),
            more_unreadable: *more_unreadable,
        }
    }

    /// Undoes everything since the mark.
    pub(super) fn rewind(&mut self, mark: &Mark) {
        self.dump.objects.truncate(mark.objects);
        self.dump.skipped.truncate(mark.skipped);
        self.dump.more_skipped = mark.more_skipped;
        self.dump.of_kind = mark.of_kind;
        self.dump.records.truncate(mark.records);
        self.dump.unreadable.truncate(mark.unreadable);
        self.dump.more_unreadable = mark.more_unreadable;
    }

    fn object(&mut self, Decoded { object, newest_ms, unreadable }: Decoded) {
        self.dump.newest_ms = self.dump.newest_ms.max(newest_ms);
        let kind = object.kind();
        self.dump.of_kind[kind as usize] += 1;
        self.dump.known.insert(kind);
        self.dump.objects.push(object);
        for one in unreadable {
            if self.dump.unreadable.len() < NAMED {
                self.dump.unreadable.push(one);
            } else {
                self.dump.more_unreadable += 1;
            }
        }
    }

    /// Records a left-out object and the reason.
    pub(super) fn leave_out(&mut self, source: ItemError) {
        let Self { file, document, item, line, .. } = *self;
        if self.dump.skipped.len() < NAMED {
            self.dump.skipped.push(Skipped { file: file.to_owned(), document, item, line, source });
        } else {
            self.dump.more_skipped += 1;
        }
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Document {
    api_version: Option<String>,
    kind: Option<String>,
    /// The fields that are kept.
    fields: Map<String, Value>,
    list: Option<List>,
}

/// A list, as far as it has been read.
#[derive(Default)]
struct List {
    /// The number of items.
    items: usize,
    /// The number of items that count.
    read: usize,
    /// Items without a kind: the list may have it at its end.
    untyped: Vec<Untyped>,
    /// Whether it is a list without an object around it, so that it has no kind.
    is_bare: bool,
}

struct Untyped {
    item: Option<usize>,
    line: usize,
    fields: Map<String, Value>,
}

impl Document {
    /// A list without an object around it.
    pub(super) fn bare_list() -> Self {
        Self { list: Some(List { is_bare: true, ..List::default() }), ..Self::default() }
    }

    /// An item of this list before it is read: a typed list has the kind of all its items once, usually at its start.
    fn of_its_kind(&self) -> Self {
        let kind = self.kind.as_ref().and_then(|kind| kind.strip_suffix("List")).filter(|kind| !kind.is_empty());
        let kind = kind.filter(|_| self.api_version.is_some()).map(str::to_owned);
        Self { api_version: self.api_version.clone().filter(|_| kind.is_some()), kind, ..Self::default() }
    }

    /// Makes it a list.
    pub(super) fn lists(&mut self) {
        self.list.get_or_insert_default();
    }

    /// Reads a field.
    pub(super) fn field<'de, D: Deserializer<'de>>(&mut self, name: &str, from: D) -> Result<(), D::Error> {
        match name {
            "apiVersion" | "kind" => {
                let value = Value::deserialize(from)?;
                let said = if name == "kind" { &mut self.kind } else { &mut self.api_version };
                *said = value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
                self.fields.insert(name.to_owned(), value);
            }
            _ => match self.needed(name) {
                Some(needed) => {
                    self.fields.insert(name.to_owned(), needed.deserialize(from)?);
                }
                None => {
                    IgnoredAny::deserialize(from)?;
                }
            },
        }
        Ok(())
    }

    /// Which parts of a field are needed, as far as the kind is known.
    fn needed(&self, name: &str) -> Option<Needed> {
        match (&self.api_version, &self.kind) {
            (Some(api_version), Some(kind)) => match Kind::named(api_version, kind) {
                Some(kind) => match kind.needed() {
                    Fields(fields) => Either(fields, TIMES).of(name),
                    all => Some(all),
                },
                // Messages name the object; lists, errors of the API and our own record are small.
                None if name == "metadata" => Some(METADATA),
                None => (is_list(kind) || kind == "Status" || record::is_one(api_version)).then_some(Whole),
            },
            _ if name == "metadata" => Some(METADATA),
            _ => Some(Whole),
        }
    }

    /// Reads an item of its list.
    pub(super) fn item<'de, D: Deserializer<'de>>(&mut self, from: D, sink: &mut Sink<'_>) -> Result<(), D::Error> {
        let is_outermost = sink.item.is_none();
        if is_outermost {
            sink.item = Some(self.list.as_ref().map_or(0, |list| list.items));
        }
        let before = sink.dump.of_kind;
        let taken = from.deserialize_any(ItemVisitor { list: self, sink });
        let read = sink.dump.of_kind.iter().sum::<usize>() - before.iter().sum::<usize>();
        let list = self.list.get_or_insert_default();
        if taken.is_ok() {
            list.items += 1;
            list.read += read;
        }
        if is_outermost {
            sink.item = None;
        }
        taken
    }

    /// Completes the document.
    pub(super) fn finish(mut self, sink: &mut Sink<'_>) {
        let Some(list) = self.list.take() else {
            return self.finish_object(sink);
        };
        let (api_version, kind) = (self.api_version.unwrap_or_default(), self.kind.unwrap_or_default());
        if kind.is_empty() && !list.is_bare {
            sink.leave_out(ItemError::ListWithoutKind);
        }
        let strays = self.fields.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
        for (name, text) in strays.filter(|(name, _)| !["apiVersion", "kind"].contains(&name.as_str())) {
            sink.leave_out(ItemError::Stray { field: name.clone(), text: text.to_owned() });
        }
        // A typed list, as in answers of the API, has the kind of all its items once.
        let item_kind = kind.strip_suffix("List").unwrap_or_default();
        let (item, line) = (sink.item, sink.line);
        let untyped = list.untyped.len();
        let mut read = list.read;
        for mut one in list.untyped {
            if !api_version.is_empty() {
                one.fields.insert("apiVersion".into(), api_version.as_str().into());
            }
            (sink.item, sink.line) = (one.item, one.line);
            read += usize::from(take(&api_version, item_kind, one.fields, sink));
        }
        (sink.item, sink.line) = (item, line);
        match Kind::named(&api_version, item_kind) {
            Some(kind) if list.items == 0 || read > 0 => drop(sink.dump.known.insert(kind)),
            None if untyped == 0 && !item_kind.is_empty() => {
                if let Some(wrong) = unknown(&api_version, item_kind, &Map::new()) {
                    sink.leave_out(wrong);
                }
            }
            _ => {}
        }
    }

    fn finish_object(mut self, sink: &mut Sink<'_>) {
        let (api_version, kind) = (self.api_version.unwrap_or_default(), self.kind.unwrap_or_default());
        // An error message of kubectl has the form of a field.
        if kind.is_empty()
            && let Some((field, Value::String(text))) = self.fields.iter().next()
            && self.fields.len() == 1
        {
            return sink.leave_out(ItemError::Stray { field: field.clone(), text: text.clone() });
        }
        // An item of a typed list does not repeat the version.
        self.fields.entry("apiVersion").or_insert_with(|| api_version.as_str().into());
        take(&api_version, &kind, self.fields, sink);
    }
}

/// Adds an object of this kind to the sink, or the reason why it is left out. Returns whether it counts.
fn take(api_version: &str, kind: &str, fields: Map<String, Value>, sink: &mut Sink<'_>) -> bool {
    let Some(counts) = Kind::named(api_version, kind) else {
        if record::is_one(api_version) {
            match Record::read(Value::Object(fields)) {
                Ok(record) => sink.dump.records.push(record),
                Err(wrong) => sink.leave_out(wrong),
            }
        } else if let Some(wrong) = unknown(api_version, kind, &fields) {
            sink.leave_out(wrong);
        }
        return false;
    };
    let value = Value::Object(fields);
    match object::read(counts, &value) {
        Ok(object) => {
            if let Some(excess) = object.excess() {
                sink.leave_out(ItemError::Excess { object: object.called(), what: object.left_out_of_it(), excess });
            }
            let unreadable = if object.unreadable() > 0 { object::unreadable(counts, &value) } else { Vec::new() };
            sink.object(Decoded { object, newest_ms: instant::newest_ms(&value), unreadable });
            true
        }
        Err(error) => {
            sink.leave_out(error.into());
            false
        }
    }
}

/// The error in an object of a kind that does not count. `None` if it can be ignored.
fn unknown(api_version: &str, kind: &str, fields: &Map<String, Value>) -> Option<ItemError> {
    let name = |fields: &Map<String, Value>| {
        let text = |field: &str| fields.get("metadata")?.get(field)?.as_str().map(str::to_owned);
        match (text("namespace"), text("name")) {
            (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
            (None, Some(name)) => format!("{kind} {name}"),
            _ => kind.to_owned(),
        }
    };
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match kind {
        "" => Some(ItemError::NoKind),
        "Table" => Some(ItemError::Table),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => {
            Some(ItemError::MetadataOnly { kind: kind.to_owned() })
        }
        "Status" if api_version == "v1" => {
            let text = fields.get("message").and_then(Value::as_str).unwrap_or("it gives no reason");
            Some(ItemError::Refused { message: text.to_owned() })
        }
        // Other API groups may have their own Nodes and Pods.
        "Node" | "Pod" if group.is_empty() => {
            Some(ItemError::Version { object: name(fields), version: api_version.to_owned(), known: "v1".to_owned() })
        }
        "AppWrapper" => Some(ItemError::Version {
            object: name(fields),
            version: api_version.to_owned(),
            known: Served::ALL.map(Served::api_version).join(", "),
        }),
        _ => None,
    }
}

/// Whether objects of this kind are lists of others.
pub(super) fn is_list(kind: &str) -> bool {
    kind.ends_with("List")
}

/// An item of a list.
struct ItemVisitor<'a, 'b> {
    list: &'a mut Document,
    sink: &'a mut Sink<'b>,
}

impl<'de> Visitor<'de> for ItemVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let mut object = self.list.of_its_kind();
        object.take_fields(map, self.sink)?;
        if object.list.is_none() && object.kind.is_none() {
            let (item, line) = (self.sink.item, self.sink.line);
            self.list.list.get_or_insert_default().untyped.push(Untyped { item, line, fields: object.fields });
        } else {
            object.finish(self.sink);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.no_object();
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.no_object();
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.no_object();
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.no_object();
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.no_object();
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.no_object();
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.no_object();
        Ok(())
    }
}

impl ItemVisitor<'_, '_> {
    fn no_object(self) {
        self.sink.leave_out(ItemError::NoObject);
    }
}

impl Document {
    /// Takes in all fields of a map.
    pub(super) fn take_fields<'de, A: MapAccess<'de>>(
        &mut self,
        mut map: A,
        sink: &mut Sink<'_>,
    ) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if name.0 == "items" {
                map.next_value_seed(Items { list: self, sink })?;
            } else {
                map.next_value_seed(Field { document: self, name: &name.0 })?;
            }
        }
        Ok(())
    }
}

/// The name of a field, borrowed from the text if possible.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        from.deserialize_identifier(NameVisitor)
    }
}

struct Field<'a> {
    document: &'a mut Document,
    name: &'a str,
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.document.field(self.name, from)
    }
}

/// The items of a list; a value that is not a list is skipped like any other field.
struct Items<'a, 'b> {
    list: &'a mut Document,
    sink: &'a mut Sink<'b>,
}

impl<'de> DeserializeSeed<'de> for Items<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the items of a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.list.lists();
        while seq.next_element_seed(Item { list: self.list, sink: self.sink })?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.list.lists();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}

/// One item of a list.
struct Item<'a, 'b> {
    list: &'a mut Document,
    sink: &'a mut Sink<'b>,
}

impl<'de> DeserializeSeed<'de> for Item<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.list.item(from, self.sink)
    }
}

/// A document that is neither an object nor a list.
pub(super) struct Root<'a, 'b>(pub(super) &'a mut Sink<'b>);

impl<'de> Visitor<'de> for Root<'_, '_> {
    type Value = Option<Document>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<Document>, A::Error> {
        let mut document = Document::default();
        document.take_fields(map, self.0)?;
        Ok(Some(document))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Document>, A::Error> {
        let mut document = Document::bare_list();
        while seq.next_element_seed(Item { list: &mut document, sink: self.0 })?.is_some() {}
        Ok(Some(document))
    }

    fn visit_unit<E>(self) -> Result<Option<Document>, E> {
        Ok(None)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Option<Document>, E> {
        let begin: String = text.chars().take(60).collect();
        Err(E::custom(format_args!("the text `{begin}` is not an object or a list of objects")))
    }
}

/// The fields of a list after its items.
pub(super) struct Behind<'a, 'b> {
    pub(super) list: &'a mut Document,
    pub(super) sink: &'a mut Sink<'b>,
}

impl<'de> Visitor<'de> for Behind<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other fields of a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.list.take_fields(map, self.sink)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
