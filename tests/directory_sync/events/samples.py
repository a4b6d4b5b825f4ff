"""Messages as EventBridge puts them into the queue."""

import json
from typing import Any

POOL_ID = "us-east-1_Example1"
SUB = "8f1f4b0e-0000-4000-8000-000000000001"
HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"


def make_record(event_name: str, **changed: Any) -> dict[str, Any]:
    """CloudTrail's record of a call on the pool, as AdminUpdateUserAttributes leaves it."""
    return {
        "eventVersion": "1.08",
        "userIdentity": {"type": "AssumedRole", "accountId": "111122223333"},
        "eventTime": "2026-11-30T10:00:00Z",
        "eventSource": "cognito-idp.amazonaws.com",
        "eventName": event_name,
        "awsRegion": "us-east-1",
        "requestParameters": {"userPoolId": POOL_ID, "username": HIDDEN, "userAttributes": HIDDEN},
        "responseElements": None,
        "additionalEventData": {"sub": SUB},
        "readOnly": False,
        "eventType": "AwsApiCall",
        "managementEvent": True,
    } | changed


def make_envelope(record: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """EventBridge's envelope around a record."""
    return {
        "version": "0",
        "id": "7bf73129-1428-4cd3-a780-95db273d1602",
        "detail-type": "AWS API Call via CloudTrail",
        "source": "aws.cognito-idp",
        "account": "111122223333",
        "time": "2026-11-30T10:00:01Z",
        "region": "us-east-1",
        "resources": [],
        "detail": record,
    } | changed


def make_body(event_name: str = "AdminUpdateUserAttributes", **changed: Any) -> str:
    """A message's body; `changed` are members of the record."""
    return json.dumps(make_envelope(make_record(event_name, **changed)))


def make_group_body(event_name: str, group_name: str, **changed: Any) -> str:
    """A message about a group, and about its user SUB unless `changed` says otherwise."""
    requested = {"userPoolId": POOL_ID, "groupName": group_name, "username": HIDDEN}
    return make_body(event_name, requestParameters=requested, **changed)
