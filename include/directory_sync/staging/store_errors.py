"""The object store's errors, translated: which right is missing, and whether retrying can help."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from directory_sync.errors import (
    MissingFilesError,
    PermanentError,
    TransientError,
)

DENIED_CODES = {"AccessDenied", "403"}
"""The answer to a HEAD request has no body, so its status is the only code."""

EXPIRED_CODE = "ExpiredToken"
"""S3's code for a session that ended, such as that of an assumed role. Each try begins a new one.
"""

DENIED_ACTION_PATTERN = re.compile(r"not authorized to perform: ([a-z0-9-]+:\w+)")
"""The action in AWS's message. Where a bucket has a KMS key, it may be an action of KMS."""

S3_ACTIONS = {
    "HeadObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
}
"""The action that an operation needs, where the action has another name than the operation (S3 user
guide, required permissions for S3 API operations).
"""


@contextmanager
def store_errors(url: str) -> Iterator[None]:
    """Translate the object store's errors about a URL into one of the two families
    (directory_sync.errors).
    """
    try:
        yield
    # s3fs turns S3's refusals into PermissionError, with S3's own error as the cause.
    except (PermissionError, NoCredentialsError) as error:
        if _find_code(error.__cause__) == EXPIRED_CODE:
            raise TransientError(
                f"Staging at {url} says that our session has expired ({EXPIRED_CODE}). The next "
                "try begins a new one; if that expires as well, renew the keys of the Connection "
                "in staging_url."
            ) from None
        raise PermanentError(
            f"Staging at {url} refuses us{_describe_denial(error.__cause__)}"
        ) from None
    except FileNotFoundError:
        raise MissingFilesError(
            f"Staging has nothing at {url}: the bucket or folder doesn't exist, or its files were "
            f"deleted (staging_retention_days). Create it or correct staging_url; where a run's "
            f"files are gone, clear the run from extract_users on."
        ) from None
    except (OSError, BotoCoreError, ClientError) as error:
        code = _find_code(error) or type(error).__name__
        raise TransientError(
            f"Staging at {url} can't be reached ({code}). Is the object store up?"
        ) from None


def _find_code(error: BaseException | None) -> str | None:
    """S3's code for an error; None where it isn't S3's."""
    return error.response["Error"].get("Code") if isinstance(error, ClientError) else None


def _describe_denial(cause: BaseException | None) -> str:
    """Which action S3 refused, and what to do."""
    if not isinstance(cause, ClientError):
        return (
            ". Give the Connection in staging_url the rights to get, put, list and delete objects "
            "there."
        )
    code = _find_code(cause)
    if code not in DENIED_CODES:
        return f" ({code}). Renew the keys of the Connection in staging_url."
    # Nothing but the action is taken from AWS's text: the text also names the role's session, which
    # may be a person's name.
    named = DENIED_ACTION_PATTERN.search(cause.response["Error"].get("Message", ""))
    action = (
        named[1] if named else S3_ACTIONS.get(cause.operation_name, f"s3:{cause.operation_name}")
    )
    policy = "iam-policy-kms.json" if action.startswith("kms:") else "iam-policy.json"
    return f" {action}. Give the Connection in staging_url this right, as docs/{policy} does."
