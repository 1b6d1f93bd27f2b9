//! Conditions of requests: on what is read (judged here, with AWS's precedence), and on what is written
//! (handed to the object layer, which judges them when the change becomes visible).

use http::HeaderMap;
use object::api::{Condition, ObjectInfo};
use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};

use crate::convert::unix_seconds;

/// What a reader demands; also of the source of a copy.
#[derive(Default)]
pub(crate) struct ReadConditions<'a> {
    pub(crate) if_match: Option<&'a ETagCondition>,
    pub(crate) if_none_match: Option<&'a ETagCondition>,
    pub(crate) if_modified_since: Option<&'a Timestamp>,
    pub(crate) if_unmodified_since: Option<&'a Timestamp>,
}

/// What the conditions say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    NotModified,
    Failed,
}

impl ReadConditions<'_> {
    /// RFC 9110 section 13.2.2, which is AWS's precedence: an entity tag outweighs the date of its pair.
    pub(crate) fn judge(&self, info: &ObjectInfo) -> Verdict {
        let tag = info.etag.to_string();
        // HTTP dates have whole seconds, so an object is as old as its last whole second.
        let modified_s = i64::try_from(info.modified_ms / 1000).unwrap_or(i64::MAX);
        match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) if !names(condition, &tag) => return Verdict::Failed,
            (None, Some(since)) if modified_s > unix_seconds(since) => return Verdict::Failed,
            _ => {}
        }
        match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) if names(condition, &tag) => Verdict::NotModified,
            (None, Some(since)) if modified_s <= unix_seconds(since) => Verdict::NotModified,
            _ => Verdict::Go,
        }
    }
}

/// The tags in a condition. s3s takes a list for one tag with quotes inside; it is taken apart here.
fn tags(condition: &ETagCondition) -> Vec<&str> {
    match condition {
        ETagCondition::Any => vec!["*"],
        ETagCondition::ETag(tag) => {
            tag.value().split('"').filter(|piece| !piece.trim_matches([',', ' ', '\t', 'W', '/']).is_empty()).collect()
        }
    }
}

fn names(condition: &ETagCondition, tag: &str) -> bool {
    tags(condition).iter().any(|given| *given == "*" || *given == tag)
}

/// The condition of a write. `If-None-Match` can only ask for absence, as on AWS.
pub(crate) fn of_write(if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> S3Result<Condition> {
    if matches!(if_none_match, Some(ETagCondition::ETag(_))) {
        return Err(crate::errors::not_implemented("If-None-Match other than * on a write"));
    }
    if if_match.is_some() && if_none_match.is_some() {
        return Err(s3_error!(InvalidRequest, "If-Match and If-None-Match exclude each other on a write."));
    }
    Ok(Condition {
        must_not_exist: if_none_match.is_some(),
        must_match: if_match.map(|condition| tags(condition).into_iter().map(str::to_owned).collect()),
        ..Condition::default()
    })
}

/// The condition of a write, from headers that s3s does not read for the operation (CopyObject).
pub(crate) fn of_write_headers(headers: &HeaderMap) -> S3Result<Condition> {
    let parse = |name: &str| {
        let value = headers.get(name).map(|value| ETagCondition::parse_http_header(value.as_bytes())).transpose();
        value.map_err(|_| s3_error!(InvalidArgument, "The header {name} is not an entity tag."))
    };
    of_write(parse("if-match")?.as_ref(), parse("if-none-match")?.as_ref())
}

/// The condition of a delete.
pub(crate) fn of_delete(
    if_match: Option<&ETagCondition>,
    size: Option<i64>,
    modified: Option<&Timestamp>,
) -> S3Result<Condition> {
    let refused = |what: &'static str| s3_error!(InvalidArgument, "{what} is out of range.");
    Ok(Condition {
        must_have_size: size.map(|s| u64::try_from(s).map_err(|_| refused("The size"))).transpose()?,
        must_be_modified_at_s: modified
            .map(|m| u64::try_from(unix_seconds(m)).map_err(|_| refused("The modification time")))
            .transpose()?,
        ..of_write(if_match, None)?
    })
}

#[cfg(test)]
mod tests {
    use object::api::{ETag, ObjectMeta};

    use super::*;
    use crate::convert::timestamp;

    fn info() -> ObjectInfo {
        ObjectInfo {
            key: "k".into(),
            size: 1,
            etag: ETag::Whole([0xab; 16]),
            modified_ms: 1_000_500,
            meta: ObjectMeta::default(),
            checksum: None,
            parts: Vec::new(),
        }
    }

    fn condition(text: &str) -> ETagCondition {
        ETagCondition::parse_http_header(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_precedence_is_that_of_the_rfc() {
        let same = condition(&format!("\"{}\"", "ab".repeat(16)));
        let other = condition("\"00\"");
        let listed = condition(&format!("\"00\", \"{}\"", "ab".repeat(16)));
        let (before, at, after) = (timestamp(999_000), timestamp(1_000_000), timestamp(1_001_000));
        let judge =
            |m: Option<&ETagCondition>, n: Option<&ETagCondition>, ms: Option<&Timestamp>, us: Option<&Timestamp>| {
                ReadConditions { if_match: m, if_none_match: n, if_modified_since: ms, if_unmodified_since: us }
                    .judge(&info())
            };
        assert_eq!(judge(None, None, None, None), Verdict::Go);
        assert_eq!(judge(Some(&same), None, None, Some(&before)), Verdict::Go);
        assert_eq!(judge(Some(&other), None, None, None), Verdict::Failed);
        assert_eq!(judge(Some(&listed), None, None, None), Verdict::Go);
        assert_eq!(judge(Some(&ETagCondition::Any), None, None, None), Verdict::Go);
        assert_eq!(judge(None, None, None, Some(&before)), Verdict::Failed);
        assert_eq!(judge(None, None, None, Some(&at)), Verdict::Go);
        assert_eq!(judge(None, Some(&same), Some(&before), None), Verdict::NotModified);
        assert_eq!(judge(None, Some(&other), Some(&after), None), Verdict::Go);
        assert_eq!(judge(None, None, Some(&at), None), Verdict::NotModified);
        assert_eq!(judge(None, None, Some(&before), None), Verdict::Go);
    }

    #[test]
    fn a_write_can_only_ask_for_absence_or_a_match() {
        assert!(of_write(None, Some(&ETagCondition::Any)).unwrap().must_not_exist);
        assert!(of_write(None, Some(&condition("\"00\""))).is_err());
        assert_eq!(of_write(Some(&condition("\"00\"")), None).unwrap().must_match, Some(vec!["00".to_owned()]));
        assert!(of_delete(None, Some(-1), None).is_err());
        assert_eq!(of_delete(None, Some(5), Some(&timestamp(9_999))).unwrap().must_be_modified_at_s, Some(9));
    }
}
