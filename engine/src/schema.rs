//! What structures a database has, as it is declared, stored in the log and merged on opening.
//!
//! Invariants:
//! 1. An id is never used twice, also not after `drop`.
//! 2. Identity (kind, dim, metric, codec, unique, rows, model, embedder) never changes; tuning
//!    (policy, ttl, capacity, indexes, capture, source, codes) follows the newest declaration.
//! 3. A declaration may name a subset: what it leaves out stays.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::log::Lsn;
use crate::propagation::Policy;
use crate::vector::Metric;

pub type StructureId = u32;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Structure {
    pub name: String,
    #[serde(default)]
    pub id: StructureId,
    /// The newest LSN when it was declared: an audit's leaves begin behind it.
    #[serde(default)]
    pub created: Lsn,
    #[serde(flatten)]
    pub kind: Kind,
    #[serde(default)]
    pub policy: Policy,
    /// Set at run time; stays until the declaration changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_override: Option<Policy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowCodec {
    Msgpack,
    Raw,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    Rows {
        #[serde(default)]
        indexes: Vec<Vec<String>>,
        #[serde(default)]
        unique: Vec<Vec<String>>,
        codec: RowCodec,
        /// Fields that say what a row is about: of all rows about one thing, only what was put
        /// last is current.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        supersede: Vec<String>,
    },
    Vectors {
        dim: usize,
        metric: Metric,
        #[serde(default)]
        rows: Option<String>,
        #[serde(default)]
        model: Option<String>,
        #[serde(default = "default_codes")]
        codes: String,
    },
    Events {
        #[serde(default)]
        capture: Vec<String>,
    },
    Audit {},
    Cache {
        ttl: i64,
        #[serde(default)]
        source: Option<String>,
        #[serde(default)]
        capacity: Option<u64>,
    },
    Context {},
    Graph {},
    View {
        source: String,
        by: Vec<String>,
        #[serde(default)]
        version: u64,
        function: Function,
        /// Microseconds that one call of the function may take.
        #[serde(default)]
        timeout: i64,
        #[serde(default)]
        on_error: String,
    },
}

/// What a view makes of a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Function {
    /// The caller's: its results are committed as data.
    Custom,
    Count,
    Sum {
        field: String,
    },
    /// The rows put last.
    Latest {
        n: u64,
    },
    /// The rows with the highest values of a field.
    Top {
        n: u64,
        by: String,
    },
}

impl Function {
    /// Whether its results follow from the log without a call.
    pub fn is_incremental(&self) -> bool {
        *self != Self::Custom
    }

    /// Whether a result is stored for each group; else it is read off the group's rows.
    pub fn stores_results(&self) -> bool {
        !matches!(self, Self::Latest { .. } | Self::Top { .. })
    }
}

fn default_codes() -> String {
    "i8".to_owned()
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rows { .. } => "rows",
            Self::Vectors { .. } => "vectors",
            Self::Events { .. } => "events",
            Self::Audit {} => "audit",
            Self::Cache { .. } => "cache",
            Self::Context {} => "context",
            Self::Graph {} => "graph",
            Self::View { .. } => "view",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Schema {
    pub structures: Vec<Structure>,
    #[serde(default)]
    pub next_id: StructureId,
    /// Identity of the embedder whose vectors these are, as its owner states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedder: Option<serde_json::Value>,
}

fn schema_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Schema, message)
}

impl Schema {
    pub fn from_json(text: &str) -> Result<Self> {
        let schema: Self = serde_json::from_str(text)
            .map_err(|error| schema_error(format!("the schema cannot be read: {error}")))?;
        schema.check()?;
        Ok(schema)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a schema has only text keys")
    }

    pub fn named(&self, name: &str) -> Option<&Structure> {
        self.structures.iter().find(|structure| structure.name == name)
    }

    pub fn by_id(&self, id: StructureId) -> Option<&Structure> {
        self.structures.iter().find(|structure| structure.id == id)
    }

    pub fn name_of(&self, id: StructureId) -> String {
        match self.by_id(id) {
            Some(structure) => structure.name.clone(),
            None if id == 0 => "log".to_owned(),
            None => format!("dropped:{id}"),
        }
    }

    /// A stored schema's own rule (invariant 1); a declaration has no ids yet.
    pub fn check_ids(&self) -> Result<()> {
        let mut ids: Vec<StructureId> = self.structures.iter().map(|one| one.id).collect();
        ids.sort_unstable();
        let distinct = ids.windows(2).all(|pair| pair[0] < pair[1]);
        let given = ids.iter().all(|id| (1..self.next_id).contains(id));
        if distinct && given {
            return Ok(());
        }
        Err(schema_error("an id is used twice, or was never given out"))
    }

    fn check(&self) -> Result<()> {
        if self.structures.len() > limits::STRUCTURES_MAX {
            return Err(Error::limit(format!(
                "a database has at most {} structures",
                limits::STRUCTURES_MAX
            )));
        }
        for (index, structure) in self.structures.iter().enumerate() {
            check_name(&structure.name)?;
            if self.structures[..index].iter().any(|other| other.name == structure.name) {
                return Err(schema_error(format!("two structures are named {:?}", structure.name)));
            }
            self.check_kind(structure)?;
        }
        Ok(())
    }

    fn check_kind(&self, structure: &Structure) -> Result<()> {
        let name = &structure.name;
        match &structure.kind {
            Kind::Rows { indexes, unique, codec, supersede } => {
                let about = (!supersede.is_empty()).then_some(supersede);
                let all = indexes.iter().chain(unique).chain(about);
                if *codec == RowCodec::Raw && all.clone().next().is_some() {
                    return Err(schema_error(format!(
                        "{name}: raw rows have no fields to index; use codec=\"msgpack\""
                    )));
                }
                if indexes.len() + unique.len() > limits::INDEXES_MAX {
                    return Err(Error::limit(format!(
                        "{name}: at most {} indexes",
                        limits::INDEXES_MAX
                    )));
                }
                for fields in all {
                    check_index(name, fields)?;
                }
                Ok(())
            }
            Kind::Vectors { dim, rows, codes, .. } => {
                if *dim == 0 || *dim > limits::VECTOR_DIM_MAX {
                    return Err(schema_error(format!(
                        "{name}: dim={dim} is not within 1 to {}",
                        limits::VECTOR_DIM_MAX
                    )));
                }
                if !["i8", "bf16", "f32"].contains(&codes.as_str()) {
                    return Err(schema_error(format!(
                        "{name}: codes={codes:?} is not one of \"i8\", \"bf16\", \"f32\""
                    )));
                }
                self.check_reference(name, "rows", rows.as_deref())
            }
            Kind::Events { capture } => capture.iter().try_for_each(|source| {
                match self.named(source).map(|found| &found.kind) {
                    Some(Kind::Rows { .. }) => Ok(()),
                    Some(other) => Err(schema_error(format!(
                        "{name}: capture={source:?} is of kind {}: rows are captured",
                        other.name()
                    ))),
                    None => Err(schema_error(format!(
                        "{name}: capture names {source:?}, which is not declared"
                    ))),
                }
            }),
            Kind::Cache { ttl, source, capacity } => {
                if *ttl <= 0 {
                    return Err(schema_error(format!("{name}: ttl must be more than 0")));
                }
                if *capacity == Some(0) {
                    return Err(schema_error(format!("{name}: capacity must be at least 1")));
                }
                self.check_reference(name, "source", source.as_deref())
            }
            Kind::Audit {} | Kind::Context {} | Kind::Graph {} => Ok(()),
            Kind::View { source, by, function, .. } => self.check_view(name, source, by, function),
        }
    }

    /// A view groups documents, of rows or of another view, and no view is its own source.
    fn check_view(
        &self,
        name: &str,
        source: &str,
        by: &[String],
        function: &Function,
    ) -> Result<()> {
        check_index(name, by).map_err(|error| error.context("by="))?;
        match function {
            Function::Latest { n } | Function::Top { n, .. } if !(1..=10_000).contains(n) => {
                return Err(schema_error(format!("{name}: n={n} is not within 1 to 10000")));
            }
            Function::Sum { field } | Function::Top { by: field, .. } => {
                check_index(name, std::slice::from_ref(field))?;
            }
            _ => {}
        }
        let mut at = source;
        for _ in 0..=self.structures.len() {
            match self.named(at).map(|found| &found.kind) {
                Some(Kind::Rows { codec: RowCodec::Msgpack, .. }) => return Ok(()),
                Some(Kind::View { function, .. }) if !function.stores_results() => {
                    return Err(schema_error(format!(
                        "{name}: source={at:?} keeps no results of its own; group its source"
                    )));
                }
                Some(Kind::View { source, .. }) => at = source,
                Some(Kind::Rows { .. }) => {
                    return Err(schema_error(format!(
                        "{name}: source={at:?} has raw values; only documents can be grouped"
                    )));
                }
                Some(other) => {
                    return Err(schema_error(format!(
                        "{name}: source={at:?} is of kind {}, not rows or a view",
                        other.name()
                    )));
                }
                None => {
                    return Err(schema_error(format!("{name}: source names {at:?}, not declared")));
                }
            }
        }
        Err(schema_error(format!("{name}: source={source:?} leads back to itself")))
    }

    /// `rows=` and `source=` name text-keyed rows.
    fn check_reference(&self, name: &str, option: &str, target: Option<&str>) -> Result<()> {
        let Some(target) = target else { return Ok(()) };
        match self.named(target).map(|found| &found.kind) {
            Some(Kind::Rows { codec: RowCodec::Msgpack, .. }) => Ok(()),
            Some(Kind::Rows { .. }) => Err(schema_error(format!(
                "{name}: {option}={target:?} has raw keys; only rows of documents can be linked"
            ))),
            Some(other) => Err(schema_error(format!(
                "{name}: {option}={target:?} is of kind {}, not rows",
                other.name()
            ))),
            None => Err(schema_error(format!("{name}: {option} names {target:?}, not declared"))),
        }
    }

    /// This stored schema with a declaration applied to it (invariants 1 to 3).
    pub fn merged(&self, declared: &Schema, lsn: Lsn) -> Result<Self> {
        let mut merged = self.clone();
        merged.next_id = merged.next_id.max(1);
        for structure in &declared.structures {
            match merged.structures.iter_mut().find(|known| known.name == structure.name) {
                Some(known) => known.retune(structure)?,
                None => {
                    let mut new = structure.clone();
                    new.id = merged.next_id;
                    new.created = lsn;
                    new.policy_override = None;
                    merged.next_id = merged
                        .next_id
                        .checked_add(1)
                        .ok_or_else(|| Error::limit("every id of a structure was given out"))?;
                    merged.structures.push(new);
                }
            }
        }
        match (&merged.embedder, &declared.embedder) {
            (Some(stored), Some(given)) if stored != given => {
                return Err(schema_error(format!(
                    "this database holds the vectors of embedder {stored}, not of {given}: vectors \
                     of two embedders do not compare; open it with the first, or make a new \
                     database"
                )));
            }
            (None, Some(given)) => merged.embedder = Some(given.clone()),
            _ => {}
        }
        merged.check()?;
        Ok(merged)
    }

    pub fn without(&self, name: &str) -> Result<Self> {
        let mut schema = self.clone();
        let count = schema.structures.len();
        schema.structures.retain(|structure| structure.name != name);
        if schema.structures.len() == count {
            return Err(schema_error(format!("no structure is named {name:?}")));
        }
        schema.check().map_err(|error| error.context(format!("cannot drop {name:?}")))?;
        Ok(schema)
    }

    pub fn renamed(&self, old: &str, new: &str) -> Result<Self> {
        check_name(new)?;
        if self.named(new).is_some() {
            return Err(schema_error(format!("a structure is named {new:?} already")));
        }
        let mut schema = self.clone();
        let mut found = false;
        for structure in &mut schema.structures {
            found |= structure.name == old;
            structure.rename_references(old, new);
        }
        if !found {
            return Err(schema_error(format!("no structure is named {old:?}")));
        }
        Ok(schema)
    }
}

impl Structure {
    pub fn is_lazy(&self) -> bool {
        matches!(self.policy_in_force(), Policy::Lazy)
    }

    /// Whether it may show a commit later than it was made. A view has its own way to tell how far
    /// it is behind, and what an audit holds is read as of now.
    pub fn may_lag(&self) -> bool {
        let by_itself = matches!(self.kind, Kind::View { .. } | Kind::Audit {});
        !by_itself && *self.policy_in_force() != Policy::Eager
    }

    pub fn policy_in_force(&self) -> &Policy {
        self.policy_override.as_ref().unwrap_or(&self.policy)
    }

    fn rename_references(&mut self, old: &str, new: &str) {
        let swap = |name: &mut String| {
            if name == old {
                new.clone_into(name);
            }
        };
        swap(&mut self.name);
        match &mut self.kind {
            Kind::Vectors { rows: Some(rows), .. } => swap(rows),
            Kind::Cache { source: Some(source), .. } => swap(source),
            Kind::Events { capture } => capture.iter_mut().for_each(swap),
            Kind::View { source, .. } => swap(source),
            _ => {}
        }
    }

    /// Takes the tuning of `declared`; another identity is refused by name.
    fn retune(&mut self, declared: &Structure) -> Result<()> {
        let differs = |what: &str, stored: String, given: String| {
            Err(schema_error(format!(
                "{}: {what} is {stored} in this database and {given} in the declaration; that \
                 cannot change, declare a new structure and copy",
                self.name
            )))
        };
        match (&self.kind, &declared.kind) {
            (
                Kind::Rows { unique, codec, .. },
                Kind::Rows { unique: new_unique, codec: new_codec, .. },
            ) => {
                if codec != new_codec {
                    return differs("codec", shown(codec), shown(new_codec));
                }
                if unique != new_unique {
                    return differs("unique", shown(unique), shown(new_unique));
                }
            }
            (
                Kind::Vectors { dim, metric, rows, model, .. },
                Kind::Vectors {
                    dim: new_dim,
                    metric: new_metric,
                    rows: new_rows,
                    model: new_model,
                    ..
                },
            ) => {
                if dim != new_dim {
                    return differs("dim", dim.to_string(), new_dim.to_string());
                }
                if metric != new_metric {
                    return differs("metric", shown(metric), shown(new_metric));
                }
                if rows != new_rows {
                    return differs("rows", shown(rows), shown(new_rows));
                }
                if model != new_model {
                    return differs("model", shown(model), shown(new_model));
                }
            }
            (stored, given) if stored.name() != given.name() => {
                return differs("kind", stored.name().to_owned(), given.name().to_owned());
            }
            _ => {}
        }
        self.kind = declared.kind.clone();
        if self.policy != declared.policy {
            self.policy = declared.policy.clone();
            self.policy_override = None;
        }
        Ok(())
    }
}

/// A value as its declaration is stored.
fn shown(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a declaration has only text keys")
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > limits::NAME_BYTES_MAX || name.starts_with('_') {
        return Err(schema_error(format!(
            "{name:?} cannot name a structure: 1 to {} bytes, not beginning with _",
            limits::NAME_BYTES_MAX
        )));
    }
    Ok(())
}

fn check_index(name: &str, fields: &[String]) -> Result<()> {
    if fields.is_empty() || fields.len() > limits::INDEX_FIELDS_MAX {
        return Err(schema_error(format!(
            "{name}: an index has 1 to {} fields",
            limits::INDEX_FIELDS_MAX
        )));
    }
    for (index, field) in fields.iter().enumerate() {
        if field.is_empty() || field.len() > limits::NAME_BYTES_MAX {
            return Err(schema_error(format!("{name}: an indexed field's name is empty or long")));
        }
        if fields[..index].contains(field) {
            return Err(schema_error(format!("{name}: an index names {field:?} twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(json: &str) -> Schema {
        Schema::from_json(&format!("{{\"structures\":[{json}]}}")).unwrap()
    }

    const FACTS: &str = r#"{"name":"facts","kind":"rows","codec":"msgpack","indexes":[["user"]]}"#;

    #[test]
    fn a_subset_keeps_the_rest_and_ids_are_never_reused() {
        let declared = schema(&format!(r#"{FACTS},{{"name":"c","kind":"context"}}"#));
        let first = Schema::default().merged(&declared, 0).unwrap();
        let second = first.merged(&schema(FACTS), 5).unwrap();
        assert_eq!(first, second);
        let dropped = second.without("c").unwrap();
        let again = dropped.merged(&schema(r#"{"name":"c","kind":"context"}"#), 9).unwrap();
        assert_eq!(again.named("c").unwrap().id, 3);
        assert_eq!(again.named("c").unwrap().created, 9);
    }

    #[test]
    fn another_identity_is_refused_by_name() {
        let stored = Schema::default()
            .merged(&schema(r#"{"name":"v","kind":"vectors","dim":8,"metric":"cosine"}"#), 0)
            .unwrap();
        let given = schema(r#"{"name":"v","kind":"vectors","dim":9,"metric":"cosine"}"#);
        let error = stored.merged(&given, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Schema);
        assert!(error.message().contains("dim is 8"), "{error}");
        assert!(stored.merged(&schema(r#"{"name":"v","kind":"graph"}"#), 0).is_err());
    }

    #[test]
    fn a_policy_set_at_run_time_stays_until_the_declaration_changes() {
        let mut stored = Schema::default().merged(&schema(FACTS), 0).unwrap();
        stored.structures[0].policy_override = Some(Policy::Lazy);
        let same = stored.merged(&schema(FACTS), 0).unwrap();
        assert_eq!(same.structures[0].policy_in_force(), &Policy::Lazy);
        let mut changed = schema(FACTS);
        changed.structures[0].policy = Policy::hybrid_default();
        let new = stored.merged(&changed, 0).unwrap();
        assert_eq!(new.structures[0].policy_in_force(), &Policy::hybrid_default());
    }

    #[test]
    fn references_must_be_declared_rows() {
        for bad in [
            r#"{"name":"v","kind":"vectors","dim":8,"metric":"l2","rows":"facts"}"#,
            r#"{"name":"e","kind":"events","capture":["nothing"]}"#,
            r#"{"name":"c","kind":"cache","ttl":1,"source":"c"}"#,
        ] {
            assert!(Schema::from_json(&format!("{{\"structures\":[{bad}]}}")).is_err(), "{bad}");
        }
    }
}
