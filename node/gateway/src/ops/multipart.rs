//! Multipart uploads: begin, complete, give up, list.

use object::api::{
    Checksum as Sum, ChecksumAlgorithm as Algorithm, ChecksumKind, ObjectApi, ObjectError, PartInfo, UploadInfo,
};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::list::{Encoding, delimiter};
use super::parts::{PARTS_MAX, part_number};
use super::{Face, user};
use crate::convert::{self, named_algorithm, owner, parse_upload, set_checksum, timestamp, upload_text};
use crate::errors::object_error;
use crate::{condition, declared, digest, paging};

/// Sorts behind every key with a given prefix.
const AFTER_PREFIX: char = char::MAX;

fn named_kind(given: Option<&ChecksumType>) -> S3Result<Option<ChecksumKind>> {
    match given.map(ChecksumType::as_str) {
        None => Ok(None),
        Some(ChecksumType::FULL_OBJECT) => Ok(Some(ChecksumKind::FullObject)),
        Some(ChecksumType::COMPOSITE) => Ok(Some(ChecksumKind::Composite)),
        Some(_) => Err(s3_error!(InvalidRequest, "Value for x-amz-checksum-type header is invalid.")),
    }
}

/// The algorithm and kind of a new upload. A client that names none gets what AWS gives it.
fn chosen(algorithm: Option<Algorithm>, kind: Option<ChecksumKind>) -> S3Result<(Algorithm, ChecksumKind)> {
    let Some(algorithm) = algorithm else {
        return match kind {
            None => Ok((Algorithm::Crc64Nvme, ChecksumKind::FullObject)),
            Some(_) => Err(s3_error!(InvalidRequest, "The x-amz-checksum-type header needs x-amz-checksum-algorithm.")),
        };
    };
    let kind = kind.unwrap_or_else(|| digest::default_kind(algorithm));
    if !digest::kind_exists(algorithm, kind) {
        return Err(s3_error!(
            InvalidRequest,
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            convert::kind(kind).as_str(),
            digest::algorithm_name(algorithm)
        ));
    }
    Ok((algorithm, kind))
}

/// A part as the client names it at completion.
struct Named {
    number: u32,
    md5: [u8; 16],
    checksum: Option<(Algorithm, String)>,
}

fn named(part: &CompletedPart) -> S3Result<Named> {
    let malformed = || s3_error!(MalformedXML, "Every part needs a number and an entity tag.");
    let number = part_number(part.part_number.ok_or_else(malformed)?)?;
    let tag = part.e_tag.as_ref().ok_or_else(malformed)?.value();
    let invalid = || object_error(ObjectError::InvalidPart { number });
    let tag = tag.trim_matches('"');
    if tag.len() != 32 || !tag.is_ascii() {
        return Err(invalid());
    }
    let md5 = u128::from_str_radix(tag, 16).map_err(|_| invalid())?.to_be_bytes();
    let checksum = [
        (Algorithm::Crc32, &part.checksum_crc32),
        (Algorithm::Crc32c, &part.checksum_crc32c),
        (Algorithm::Crc64Nvme, &part.checksum_crc64nvme),
        (Algorithm::Sha1, &part.checksum_sha1),
        (Algorithm::Sha256, &part.checksum_sha256),
    ]
    .into_iter()
    .find_map(|(algorithm, value)| Some((algorithm, value.clone()?)));
    Ok(Named { number, md5, checksum })
}

fn named_parts(upload: Option<&CompletedMultipartUpload>) -> S3Result<Vec<Named>> {
    let parts = upload.and_then(|upload| upload.parts.as_deref()).unwrap_or_default();
    if parts.is_empty() || parts.len() > PARTS_MAX.unsigned_abs() as usize {
        return Err(s3_error!(MalformedXML, "A completion names between 1 and {PARTS_MAX} parts."));
    }
    let named: Vec<Named> = parts.iter().map(named).collect::<S3Result<_>>()?;
    if named.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err(object_error(ObjectError::InvalidPartOrder));
    }
    Ok(named)
}

/// The stored parts that were named, in that order.
fn find<'a>(named: &[Named], stored: &'a [PartInfo]) -> S3Result<Vec<&'a PartInfo>> {
    let find_one = |part: &Named| {
        let at = stored.binary_search_by_key(&part.number, |info| info.number).ok();
        let found = at.map(|at| &stored[at]).filter(|info| info.md5 == part.md5);
        let same = |info: &&PartInfo| match (&part.checksum, &info.checksum) {
            (Some((algorithm, text)), Some(kept)) if *algorithm == kept.algorithm => *text == digest::text(kept),
            // The upload keeps another algorithm; the client's was verified when the part came.
            _ => true,
        };
        found.filter(same).ok_or_else(|| object_error(ObjectError::InvalidPart { number: part.number }))
    };
    named.iter().map(find_one).collect()
}

/// What the client declares of the whole must be what the parts give.
fn check_declared(given: Option<&Sum>, kind: Option<ChecksumKind>, whole: Option<&Sum>) -> S3Result<()> {
    if kind.is_some() && kind != whole.map(|whole| whole.kind) {
        return Err(object_error(ObjectError::ChecksumMismatch));
    }
    let Some(given) = given else { return Ok(()) };
    match whole {
        Some(whole) if whole.algorithm == given.algorithm && whole.value == given.value => Ok(()),
        Some(whole) if whole.algorithm == given.algorithm => Err(s3_error!(
            BadDigest,
            "The {} you specified did not match the calculated checksum.",
            digest::algorithm_name(given.algorithm)
        )),
        _ => Err(object_error(ObjectError::ChecksumMismatch)),
    }
}

/// The object's checksum among a completion's headers; a composite one may carry its `-N`.
fn whole_checksum(headers: &http::HeaderMap) -> S3Result<Option<Sum>> {
    let mut plain = http::HeaderMap::new();
    for algorithm in digest::ALGORITHMS {
        let name = digest::header_name(algorithm);
        if let Some(text) = declared::text(headers, name)? {
            let value = text.rsplit_once('-').map_or(text, |(value, _)| value);
            let value = http::HeaderValue::try_from(value);
            plain.insert(name, value.map_err(|_| s3_error!(InvalidRequest, "Value for {name} header is invalid."))?);
        }
    }
    declared::checksum(&plain)
}

impl<O: ObjectApi> Face<O> {
    pub(super) async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let meta = convert::meta(&request.headers)?;
        let named = named_algorithm(request.input.checksum_algorithm.as_ref())?;
        let checksum = chosen(named, named_kind(request.input.checksum_type.as_ref())?)?;
        let (bucket, key) = (&request.input.bucket, &request.input.key);
        let upload =
            self.api.create_upload(bucket, key, user(&request), meta, Some(checksum)).await.map_err(object_error)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(bucket.clone()),
            key: Some(key.clone()),
            upload_id: Some(upload_text(upload)),
            checksum_algorithm: named.map(convert::algorithm),
            checksum_type: named.map(|_| convert::kind(checksum.1)),
            ..Default::default()
        }))
    }

    /// All parts of an upload, in order; `None` when there is no such upload (any more).
    async fn all_parts(&self, bucket: &str, key: &str, upload: u128) -> S3Result<Option<Vec<PartInfo>>> {
        let mut parts: Vec<PartInfo> = Vec::new();
        loop {
            let after = parts.last().map_or(0, |part| part.number);
            match self.api.list_parts(bucket, key, upload, after, paging::PAGE_MAX).await {
                Ok((page, more)) => {
                    let ended = page.is_empty() || !more;
                    parts.extend(page);
                    if ended {
                        return Ok(Some(parts));
                    }
                }
                Err(ObjectError::NoSuchUpload) => return Ok(None),
                Err(error) => return Err(object_error(error)),
            }
        }
    }

    /// The checksum of the object to be, after everything the client said of it was compared.
    async fn checksum_of(
        &self,
        input: &CompleteMultipartUploadInput,
        upload: u128,
        headers: &http::HeaderMap,
        named: &[Named],
    ) -> S3Result<Option<Sum>> {
        let (bucket, key) = (&input.bucket, &input.key);
        // An upload that is gone may have been completed by this very request before: the object layer knows.
        let info = match self.api.head_upload(bucket, key, upload).await {
            Ok(info) => info,
            Err(ObjectError::NoSuchUpload) => return Ok(None),
            Err(error) => return Err(object_error(error)),
        };
        let Some(stored) = self.all_parts(bucket, key, upload).await? else { return Ok(None) };
        let parts = find(named, &stored)?;
        let bytes: u64 = parts.iter().map(|part| part.size).sum();
        if input.mpu_object_size.is_some_and(|declared| u64::try_from(declared) != Ok(bytes)) {
            return Err(s3_error!(
                InvalidRequest,
                "The provided 'x-amz-mp-object-size' header value does not match what was computed."
            ));
        }
        let whole = info.checksum.and_then(|(algorithm, kind)| {
            digest::of_parts(algorithm, kind, parts.iter().map(|part| (part.size, part.checksum.as_ref())))
        });
        let given = whole_checksum(headers)?;
        check_declared(given.as_ref(), named_kind(input.checksum_type.as_ref())?, whole.as_ref())?;
        Ok(whole)
    }

    pub(super) async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = &request.input;
        let upload = parse_upload(&input.upload_id)?;
        let condition = condition::of_write(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let named = named_parts(input.multipart_upload.as_ref())?;
        let checksum = self.checksum_of(input, upload, &request.headers, &named).await?;
        let parts = named.iter().map(|part| (part.number, part.md5)).collect();
        let (bucket, key) = (&input.bucket, &input.key);
        let info =
            self.api.complete_upload(bucket, key, upload, parts, checksum, condition).await.map_err(object_error)?;
        let mut output = CompleteMultipartUploadOutput {
            location: Some(format!("/{bucket}/{}", convert::url_encode(key))),
            bucket: Some(bucket.clone()),
            key: Some(key.clone()),
            e_tag: Some(convert::etag(info.etag)),
            checksum_type: convert::checksum_kind(info.checksum.as_ref()),
            ..Default::default()
        };
        set_checksum!(output, info.checksum.as_ref());
        Ok(S3Response::new(output))
    }

    pub(super) async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = &request.input;
        let upload = parse_upload(&input.upload_id)?;
        self.api.abort_upload(&input.bucket, &input.key, upload).await.map_err(object_error)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    /// One page of uploads, rolled up by the delimiter: uploads, prefixes, and the last (key, upload) seen.
    async fn uploads(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        mut after: Option<(String, u128)>,
        limit: usize,
    ) -> S3Result<UploadPage> {
        let mut page = UploadPage::default();
        'pages: loop {
            let (batch, more) =
                self.api.list_uploads(bucket, prefix, after.clone(), paging::PAGE_MAX).await.map_err(object_error)?;
            for info in batch {
                let at = delimiter.and_then(|d| Some(info.key[prefix.len()..].find(d)? + prefix.len() + d.len()));
                if page.uploads.len() + page.prefixes.len() == limit {
                    page.truncated = true;
                    return Ok(page);
                }
                if let Some(at) = at {
                    let rolled = info.key[..at].to_owned();
                    // What is left of this prefix is skipped at one go.
                    let behind = (format!("{rolled}{AFTER_PREFIX}"), u128::MAX);
                    page.last = Some(behind.clone());
                    page.prefixes.push(rolled);
                    after = Some(behind);
                    continue 'pages;
                }
                after = Some((info.key.clone(), info.upload));
                page.last = after.clone();
                page.uploads.push(info);
            }
            if !more {
                return Ok(page);
            }
        }
    }

    pub(super) async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = paging::page("max-uploads", input.max_uploads)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = match input.key_marker.clone().filter(|key| !key.is_empty()) {
            None => None,
            Some(key) => {
                let id = input.upload_id_marker.as_deref().filter(|id| !id.is_empty());
                Some((key, id.map(parse_upload).transpose()?.unwrap_or(u128::MAX)))
            }
        };
        let delimiter = delimiter(input.delimiter.as_ref());
        let page = self.uploads(&input.bucket, &prefix, delimiter.as_deref(), after, limit).await?;
        let next = page.last.filter(|_| page.truncated);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            common_prefixes: Some(
                page.prefixes.into_iter().map(|p| CommonPrefix { prefix: Some(encoding.write(p)) }).collect(),
            ),
            delimiter: encoding.write_opt(input.delimiter),
            encoding_type: input.encoding_type,
            is_truncated: Some(page.truncated),
            key_marker: Some(encoding.write(input.key_marker.unwrap_or_default())),
            max_uploads: i32::try_from(limit).ok(),
            next_upload_id_marker: next.as_ref().map(|(_, upload)| upload_text(*upload)),
            next_key_marker: next.map(|(key, _)| encoding.write(key)),
            prefix: Some(encoding.write(prefix)),
            upload_id_marker: input.upload_id_marker,
            uploads: Some(page.uploads.into_iter().map(|info| listed(info, encoding)).collect()),
            request_charged: None,
        }))
    }
}

#[derive(Default)]
struct UploadPage {
    uploads: Vec<UploadInfo>,
    prefixes: Vec<String>,
    last: Option<(String, u128)>,
    truncated: bool,
}

fn listed(info: UploadInfo, encoding: Encoding) -> MultipartUpload {
    MultipartUpload {
        checksum_algorithm: info.checksum.map(|(algorithm, _)| convert::algorithm(algorithm)),
        checksum_type: info.checksum.map(|(_, kind)| convert::kind(kind)),
        initiated: Some(timestamp(info.started_ms)),
        initiator: Some(Initiator { display_name: Some(info.owner.clone()), id: Some(info.owner.clone()) }),
        owner: Some(owner(&info.owner)),
        storage_class: Some(convert::standard()),
        upload_id: Some(upload_text(info.upload)),
        key: Some(encoding.write(info.key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_and_kinds_combine_as_on_aws() {
        let none = chosen(None, None).unwrap();
        assert_eq!(none, (Algorithm::Crc64Nvme, ChecksumKind::FullObject));
        assert_eq!(chosen(Some(Algorithm::Crc32), None).unwrap().1, ChecksumKind::Composite);
        assert!(chosen(Some(Algorithm::Crc32), Some(ChecksumKind::FullObject)).is_ok());
        assert!(chosen(Some(Algorithm::Sha256), Some(ChecksumKind::FullObject)).is_err());
        assert!(chosen(Some(Algorithm::Crc64Nvme), Some(ChecksumKind::Composite)).is_err());
        assert!(chosen(None, Some(ChecksumKind::Composite)).is_err());
    }
}
