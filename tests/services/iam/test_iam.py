"""IAM as real clients see it: documents read back as they were given, names kept apart, conflicts told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.testing.api_world import ACCOUNT, ApiWorld

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
TRUST_TEXT = str(TRUST).replace("'", '"')
READ = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}}
READ_TEXT = str(READ).replace("'", '"')
MANAGED = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"


@pytest.fixture
def world(tmp_path: Path) -> ApiWorld:
    return ApiWorld(tmp_path)


@pytest.fixture
def iam(world: ApiWorld) -> Any:
    return world.client("iam")


def refused(call: Any, **members: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    reply = caught.value.response
    return reply["Error"]["Code"], reply["ResponseMetadata"]["HTTPStatusCode"]


def test_a_role_is_read_back_as_it_was_created(iam: Any) -> None:
    made = iam.create_role(
        RoleName="R",
        Path="/service-role/",
        AssumeRolePolicyDocument=TRUST_TEXT,
        Description="für Jobs",
        MaxSessionDuration=7200,
        Tags=[{"Key": "a", "Value": "b"}],
    )["Role"]
    found = iam.get_role(RoleName="R")["Role"]
    assert found == made
    assert found["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/service-role/R"
    assert found["AssumeRolePolicyDocument"] == TRUST
    assert (found["Description"], found["MaxSessionDuration"]) == ("für Jobs", 7200)
    assert found["Tags"] == [{"Key": "a", "Value": "b"}]
    assert found["RoleId"].startswith("AROA")


def test_roles_are_updated(iam: Any) -> None:
    iam.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST_TEXT)
    iam.update_role(RoleName="R", Description="new", MaxSessionDuration=3700)
    iam.update_assume_role_policy(RoleName="R", PolicyDocument=READ_TEXT)
    found = iam.get_role(RoleName="R")["Role"]
    assert (found["Description"], found["MaxSessionDuration"]) == ("new", 3700)
    assert found["AssumeRolePolicyDocument"] == READ
    assert iam.update_role_description(RoleName="R", Description="newer")["Role"]["Description"] == "newer"


def test_names_are_taken_once_and_missing_ones_told(iam: Any) -> None:
    iam.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST_TEXT)
    again = {"RoleName": "R", "AssumeRolePolicyDocument": TRUST_TEXT}
    assert refused(iam.create_role, **again) == ("EntityAlreadyExists", 409)
    assert refused(iam.get_role, RoleName="none") == ("NoSuchEntity", 404)
    assert refused(iam.delete_role, RoleName="none") == ("NoSuchEntity", 404)
    assert refused(iam.update_role, RoleName="none") == ("NoSuchEntity", 404)
    assert refused(iam.get_user, UserName="none") == ("NoSuchEntity", 404)
    missing = f"arn:aws:iam::{ACCOUNT}:policy/none"
    assert refused(iam.get_policy, PolicyArn=missing) == ("NoSuchEntity", 404)


@pytest.mark.parametrize("document", ["{", "[]", "{}", '{"Statement": "x"}', "text"])
def test_a_document_that_is_no_policy_is_refused(iam: Any, document: str) -> None:
    iam.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST_TEXT)
    broken = ("MalformedPolicyDocument", 400)
    assert refused(iam.create_role, RoleName="Q", AssumeRolePolicyDocument=document) == broken
    assert refused(iam.create_policy, PolicyName="P", PolicyDocument=document) == broken
    inline = {"RoleName": "R", "PolicyName": "P", "PolicyDocument": document}
    assert refused(iam.put_role_policy, **inline) == broken


def test_roles_are_listed_in_pages_by_name(iam: Any) -> None:
    for number in range(7):
        path = "/odd/" if number % 2 else "/even/"
        iam.create_role(RoleName=f"R{number}", Path=path, AssumeRolePolicyDocument=TRUST_TEXT)
    first = iam.list_roles(MaxItems=3)
    assert [role["RoleName"] for role in first["Roles"]] == ["R0", "R1", "R2"]
    assert first["IsTruncated"] is True
    pages = iam.get_paginator("list_roles").paginate(PaginationConfig={"PageSize": 2})
    assert [role["RoleName"] for page in pages for role in page["Roles"]] == [f"R{n}" for n in range(7)]
    odd = iam.list_roles(PathPrefix="/odd/")
    assert [role["RoleName"] for role in odd["Roles"]] == ["R1", "R3", "R5"]
    assert odd["IsTruncated"] is False
    assert refused(iam.list_roles, Marker="no marker") == ("ValidationError", 400)


def test_inline_policies_live_in_their_role(iam: Any) -> None:
    iam.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST_TEXT)
    iam.put_role_policy(RoleName="R", PolicyName="P", PolicyDocument=READ_TEXT)
    iam.put_role_policy(RoleName="R", PolicyName="A", PolicyDocument=READ_TEXT)
    assert iam.get_role_policy(RoleName="R", PolicyName="P")["PolicyDocument"] == READ
    assert iam.list_role_policies(RoleName="R")["PolicyNames"] == ["A", "P"]
    assert refused(iam.delete_role, RoleName="R") == ("DeleteConflict", 409)
    assert refused(iam.get_role_policy, RoleName="R", PolicyName="none") == ("NoSuchEntity", 404)
    for name in ("A", "P"):
        iam.delete_role_policy(RoleName="R", PolicyName=name)
    assert refused(iam.delete_role_policy, RoleName="R", PolicyName="P") == ("NoSuchEntity", 404)
    iam.delete_role(RoleName="R")
    assert iam.list_roles()["Roles"] == []


def test_policies_are_attached_and_hold_what_they_are_attached_to(iam: Any) -> None:
    iam.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST_TEXT)
    own = iam.create_policy(PolicyName="Own", Path="/p/", PolicyDocument=READ_TEXT)["Policy"]
    for _ in range(2):
        iam.attach_role_policy(RoleName="R", PolicyArn=own["Arn"])
        iam.attach_role_policy(RoleName="R", PolicyArn=MANAGED)
    attached = iam.list_attached_role_policies(RoleName="R")["AttachedPolicies"]
    assert attached == [
        {"PolicyName": "Own", "PolicyArn": own["Arn"]},
        {"PolicyName": "AmazonSageMakerFullAccess", "PolicyArn": MANAGED},
    ]
    assert iam.get_policy(PolicyArn=own["Arn"])["Policy"]["AttachmentCount"] == 1
    assert refused(iam.delete_policy, PolicyArn=own["Arn"]) == ("DeleteConflict", 409)
    assert refused(iam.delete_role, RoleName="R") == ("DeleteConflict", 409)
    none = f"arn:aws:iam::{ACCOUNT}:policy/none"
    assert refused(iam.attach_role_policy, RoleName="R", PolicyArn=none) == ("NoSuchEntity", 404)
    not_there = {"RoleName": "R", "PolicyArn": none}
    assert refused(iam.detach_role_policy, **not_there) == ("NoSuchEntity", 404)
    nonsense = "this-is-no-arn-of-a-policy"
    assert refused(iam.attach_role_policy, RoleName="R", PolicyArn=nonsense) == ("InvalidInput", 400)
    for arn in (own["Arn"], MANAGED):
        iam.detach_role_policy(RoleName="R", PolicyArn=arn)
    iam.delete_role(RoleName="R")
    iam.delete_policy(PolicyArn=own["Arn"])
    assert iam.list_policies(Scope="Local")["Policies"] == []


def test_a_policy_has_versions(iam: Any) -> None:
    arn = iam.create_policy(PolicyName="P", PolicyDocument=READ_TEXT)["Policy"]["Arn"]
    made = iam.create_policy_version(PolicyArn=arn, PolicyDocument=TRUST_TEXT, SetAsDefault=True)
    assert made["PolicyVersion"]["VersionId"] == "v2"
    assert iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v2"
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"] == READ
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v2")["PolicyVersion"]["Document"] == TRUST
    versions = iam.list_policy_versions(PolicyArn=arn)["Versions"]
    assert [(version["VersionId"], version["IsDefaultVersion"]) for version in versions] == [
        ("v1", False),
        ("v2", True),
    ]
    assert refused(iam.delete_policy_version, PolicyArn=arn, VersionId="v2") == ("DeleteConflict", 409)
    assert refused(iam.delete_policy, PolicyArn=arn) == ("DeleteConflict", 409)
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    iam.delete_policy_version(PolicyArn=arn, VersionId="v2")
    assert refused(iam.get_policy_version, PolicyArn=arn, VersionId="v2") == ("NoSuchEntity", 404)
    for number in range(3, 7):
        version = iam.create_policy_version(PolicyArn=arn, PolicyDocument=READ_TEXT)["PolicyVersion"]
        assert version["VersionId"] == f"v{number}"
    too_many = {"PolicyArn": arn, "PolicyDocument": READ_TEXT}
    assert refused(iam.create_policy_version, **too_many) == ("LimitExceeded", 409)


def test_service_linked_roles_have_their_services_names(iam: Any) -> None:
    service = "sagemaker.application-autoscaling.amazonaws.com"
    role = iam.create_service_linked_role(AWSServiceName=service)["Role"]
    assert role["RoleName"] == "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
    assert role["Path"] == f"/aws-service-role/{service}/"
    assert refused(iam.create_service_linked_role, AWSServiceName=service) == ("InvalidInput", 400)
    path = "/aws-service-role/x/"
    by_hand = {"RoleName": "R", "Path": path, "AssumeRolePolicyDocument": TRUST_TEXT}
    assert refused(iam.create_role, **by_hand) == ("ValidationError", 400)


def test_tags_of_roles(iam: Any) -> None:
    iam.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST_TEXT, Tags=[{"Key": "a", "Value": "1"}])
    iam.tag_role(RoleName="R", Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    tags = iam.list_role_tags(RoleName="R")["Tags"]
    assert tags == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}]
    iam.untag_role(RoleName="R", TagKeys=["a"])
    assert iam.list_role_tags(RoleName="R")["Tags"] == [{"Key": "b", "Value": "3"}]
    twice = [{"Key": "x", "Value": "1"}, {"Key": "X", "Value": "2"}]
    assert refused(iam.tag_role, RoleName="R", Tags=twice) == ("InvalidInput", 400)
    many = [{"Key": f"k{number}", "Value": ""} for number in range(50)]
    assert refused(iam.tag_role, RoleName="R", Tags=many) == ("LimitExceeded", 409)


def test_a_user_calls_with_its_own_keys(world: ApiWorld, iam: Any) -> None:
    made = iam.create_user(UserName="ada", Path="/team/")["User"]
    key = iam.create_access_key(UserName="ada")["AccessKey"]
    identity = world.client("sts", key).get_caller_identity()
    assert identity["Arn"] == made["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/team/ada"
    assert identity["UserId"] == made["UserId"]
    mine = world.client("iam", key)
    assert mine.get_user()["User"]["UserName"] == "ada"
    assert [k["AccessKeyId"] for k in mine.list_access_keys()["AccessKeyMetadata"]] == [key["AccessKeyId"]]
    session = world.client("sts", key).get_session_token()["Credentials"]
    assert world.client("sts", session).get_caller_identity()["Arn"] == made["Arn"]


def test_a_key_that_is_off_or_gone_opens_nothing(world: ApiWorld, iam: Any) -> None:
    iam.create_user(UserName="ada")
    key = iam.create_access_key(UserName="ada")["AccessKey"]
    sts = world.client("sts", key)
    named = {"UserName": "ada", "AccessKeyId": key["AccessKeyId"]}
    iam.update_access_key(**named, Status="Inactive")
    assert refused(sts.get_caller_identity) == ("InvalidClientTokenId", 403)
    iam.update_access_key(**named, Status="Active")
    sts.get_caller_identity()
    assert refused(iam.delete_user, UserName="ada") == ("DeleteConflict", 409)
    iam.delete_access_key(**named)
    assert refused(sts.get_caller_identity) == ("InvalidClientTokenId", 403)
    assert refused(iam.delete_access_key, **named) == ("NoSuchEntity", 404)
    iam.delete_user(UserName="ada")
    assert iam.list_users()["Users"] == []


def test_a_user_has_two_keys_at_most_and_none_of_others(iam: Any) -> None:
    for name in ("ada", "bob"):
        iam.create_user(UserName=name)
    key = iam.create_access_key(UserName="ada")["AccessKey"]
    iam.create_access_key(UserName="ada")
    assert refused(iam.create_access_key, UserName="ada") == ("LimitExceeded", 409)
    assert len(iam.list_access_keys(UserName="ada")["AccessKeyMetadata"]) == 2
    theirs = {"UserName": "bob", "AccessKeyId": key["AccessKeyId"]}
    assert refused(iam.delete_access_key, **theirs) == ("NoSuchEntity", 404)


def test_the_secret_of_a_key_is_shown_once_and_kept_nowhere(world: ApiWorld, iam: Any) -> None:
    iam.create_user(UserName="ada")
    key = iam.create_access_key(UserName="ada")["AccessKey"]
    assert "SecretAccessKey" not in str(iam.list_access_keys(UserName="ada"))
    assert key["SecretAccessKey"] not in repr(vars(world.store))


def test_the_owner_is_no_user_but_is_shown(iam: Any) -> None:
    assert iam.get_user()["User"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert refused(iam.create_access_key) == ("ValidationError", 400)
    assert iam.list_account_aliases()["AccountAliases"] == []


def test_accounts_do_not_see_each_other(tmp_path: Path) -> None:
    world = ApiWorld(tmp_path, account_from_access_key=True)
    one = world.client("iam", {"AccessKeyId": "1" * 12, "SecretAccessKey": "x"})
    two = world.client("iam", {"AccessKeyId": "2" * 12, "SecretAccessKey": "x"})
    one.create_role(RoleName="R", AssumeRolePolicyDocument=TRUST_TEXT)
    assert refused(two.get_role, RoleName="R") == ("NoSuchEntity", 404)
    assert two.list_roles()["Roles"] == []
