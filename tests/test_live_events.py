"""docs/live-events.yaml: CloudFormation takes it, its rule lets through what the sync reads, and
its rights are what the sync calls.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from demo.aws import Aws
from directory_sync.events.joining import join_messages
from directory_sync.events.messages import PoolEvent, parse_message
from directory_sync.events.queue import Message, open_queue
from directory_sync.settings import Sync
from tests.conftest import ROOT
from tests.directory_sync.events.samples import HIDDEN, POOL_ID, SUB, make_record
from tests.directory_sync.test_settings import sync
from tests.sqs_stand_in import Answer, serve_sqs

TEMPLATE = ROOT / "docs" / "live-events.yaml"
NUMBERS = itertools.count()


def deploy(moto: Aws, encryption: str) -> dict[str, str]:
    """The stack's outputs."""
    formation = moto.client("cloudformation")
    name = f"live-events-{next(NUMBERS)}"
    formation.create_stack(
        StackName=name,
        TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
        Parameters=[
            {"ParameterKey": "UserPoolId", "ParameterValue": POOL_ID},
            {"ParameterKey": "Encryption", "ParameterValue": encryption},
        ],
        Capabilities=["CAPABILITY_IAM"],
    )
    (stack,) = formation.describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def make_live_sync(url: str) -> Sync:
    return Sync.model_validate(sync(events={"queue_url": url}))


def send_events(moto: Aws, *records: dict[str, Any], source: str = "aws.cognito-idp") -> None:
    entries = [
        {
            "Source": source,
            "DetailType": "AWS API Call via CloudTrail",
            "Detail": json.dumps(record),
            "Time": datetime(2026, 11, 30, 10, tzinfo=UTC),
        }
        for record in records
    ]
    answer = moto.client("events").put_events(Entries=entries)
    assert answer["FailedEntryCount"] == 0


def read_actions(moto: Aws, policy_arn: str) -> set[str]:
    """The actions that a policy allows."""
    iam = moto.client("iam")
    version = iam.get_policy(PolicyArn=policy_arn)["Policy"]["DefaultVersionId"]
    found = iam.get_policy_version(PolicyArn=policy_arn, VersionId=version)
    statements = found["PolicyVersion"]["Document"]["Statement"]
    return {action for statement in statements for action in statement["Action"]}


def test_the_template_has_no_fault() -> None:
    command = [str(Path(sys.executable).with_name("cfn-lint")), str(TEMPLATE)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("", 0)


@pytest.mark.parametrize("encryption", ["sqs", "kms"])
def test_an_event_of_the_pool_comes_through_the_rule_and_the_queue_to_the_sync(
    moto: Aws, aws_connection: Callable[[str], None], encryption: str
) -> None:
    aws_connection(moto.endpoint)
    outputs = deploy(moto, encryption)
    other_pool = {"userPoolId": "us-east-1_Other", "username": HIDDEN}
    by_token = {"accessToken": HIDDEN}
    send_events(
        moto,
        make_record("AdminUpdateUserAttributes"),
        make_record("CreateGroup", requestParameters={"userPoolId": POOL_ID, "groupName": "Sales"}),
        make_record("AdminRenameSomething"),
        make_record("DeleteUser", requestParameters=by_token, additionalEventData={"sub": "s-2"}),
        make_record("AdminInitiateAuth"),
        make_record("InitiateAuth", requestParameters={"clientId": "client"}),
        make_record("AdminDeleteUser", requestParameters=other_pool),
    )
    send_events(moto, make_record("AdminDeleteUser"), source="somebody.else")
    taken = open_queue(make_live_sync(outputs["QueueUrl"])).take_messages(100)
    parsed = [(parse_message(message.body, POOL_ID), message.arrived_at) for message in taken]
    names = [event.event_name for event, _ in parsed if isinstance(event, PoolEvent)]
    assert sorted(names) == [
        "AdminRenameSomething",
        "AdminUpdateUserAttributes",
        "CreateGroup",
        "DeleteUser",
    ]
    assert len(parsed) == len(names)
    assert join_messages(parsed).subs == {SUB, "s-2"}


@pytest.mark.parametrize("encryption", ["sqs", "kms"])
def test_a_queue_has_a_key_of_the_accounts_only_where_it_was_asked_for(
    moto: Aws, encryption: str
) -> None:
    outputs = deploy(moto, encryption)
    for url in (outputs["QueueUrl"], outputs["DeadLettersUrl"]):
        found = moto.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        assert ("KmsMasterKeyId" in found["Attributes"]) == (encryption == "kms")


@pytest.mark.parametrize(
    ("policy", "queue"), [("QueuePolicy", "Queue"), ("DeadLettersPolicy", "DeadLetters")]
)
def test_only_the_rule_may_send_to_a_queue_and_everybody_uses_tls(policy: str, queue: str) -> None:
    """Read from the template, since moto's CloudFormation sets no queue policies."""
    resources = cfn_yaml.load(str(TEMPLATE))["Resources"]
    properties = resources[policy]["Properties"]
    assert properties["Queues"] == [{"Ref": queue}]
    send, tls = properties["PolicyDocument"]["Statement"]
    assert {**send, "Sid": ""} == {
        "Sid": "",
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": {"Fn::GetAtt": [queue, "Arn"]},
        "Condition": {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["Rule", "Arn"]}}},
    }
    assert (tls["Effect"], tls["Principal"], tls["Action"]) == ("Deny", "*", "sqs:*")
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_eventbridge_may_use_the_key_of_the_queues() -> None:
    key = cfn_yaml.load(str(TEMPLATE))["Resources"]["Key"]["Properties"]["KeyPolicy"]
    (use,) = [one for one in key["Statement"] if "Service" in one["Principal"]]
    assert use["Principal"] == {"Service": "events.amazonaws.com"}
    assert use["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]


def test_what_nobody_can_read_moves_to_the_dead_letters_of_the_template(
    moto: Aws, aws_connection: Callable[[str], None]
) -> None:
    aws_connection(moto.endpoint)
    outputs = deploy(moto, "sqs")
    moto.client("sqs").send_message(QueueUrl=outputs["QueueUrl"], MessageBody="bad")
    opened = open_queue(make_live_sync(outputs["QueueUrl"]))
    assert opened.move_to_dead_letters(opened.take_messages(10)) == 1
    found = moto.client("sqs").receive_message(QueueUrl=outputs["DeadLettersUrl"])
    assert [message["Body"] for message in found["Messages"]] == ["bad"]


def answer_anything(operation: str, parameters: dict[str, Any]) -> Answer:
    policy = {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:111122223333:dead"}
    answers: dict[str, dict[str, Any]] = {
        "GetQueueAttributes": {"Attributes": {"RedrivePolicy": json.dumps(policy)}},
        "GetQueueUrl": {"QueueUrl": "https://sqs.us-east-1.amazonaws.com/111122223333/dead"},
    }
    return 200, answers.get(operation, {})


def test_the_rights_on_the_queue_are_what_the_sync_calls_and_nothing_more(
    moto: Aws, aws_connection: Callable[[str], None]
) -> None:
    outputs = deploy(moto, "kms")
    actions = read_actions(moto, outputs["RightsArn"])
    with serve_sqs(answer_anything) as served:
        aws_connection(served.endpoint)
        opened = open_queue(make_live_sync(f"{served.endpoint}/111122223333/events"))
        opened.take_messages(10)
        messages = [Message("id", "body", "receipt", datetime.now(UTC), 1)]
        opened.extend(messages)
        opened.delete(messages)
        opened.move_to_dead_letters(messages)
    called = {f"sqs:{operation.removesuffix('Batch')}" for operation in served.calls}
    assert called == {action for action in actions if action.startswith("sqs:")}
    assert read_actions(moto, outputs["KeyRightsArn"]) == {"kms:Decrypt", "kms:GenerateDataKey"}


def test_the_template_gives_every_right_on_the_pool_that_the_policy_has(moto: Aws) -> None:
    policy = json.loads((ROOT / "docs" / "iam-policy.json").read_text(encoding="utf-8"))
    listed = itertools.chain.from_iterable(
        [one["Action"]] if isinstance(one["Action"], str) else one["Action"]
        for one in policy["Statement"]
    )
    outputs = deploy(moto, "sqs")
    given = read_actions(moto, outputs["RightsArn"])
    assert {action for action in given if action.startswith("cognito-idp:")} == {
        action for action in listed if action.startswith("cognito-idp:")
    }
    assert "KeyRightsArn" not in outputs, "without a key, nobody needs rights on it"
