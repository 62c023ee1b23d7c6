"""What becomes of each member of a request: done, refused, or without effect here.

One table of all shapes that requests to executed operations are made of, by botocore's names; a
test walks its service model, so that a member that AWS adds has to be classified before
anybody's request with it is taken. Where a member is refused or without effect, its own members
are not listed.

DONE       it does here what it does on AWS, or is kept and shown, where that is all AWS does.
           Values that are not executed are refused by the operations themselves.
REFUSED    what it asks for would be missing from the result: the request is refused, unless its
           value asks for nothing (false, empty, or listed in INERT).
NO_EFFECT  what it asks for cannot be told from the result, or is no matter on one machine; the
           report lists it.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from rehearsal.emulator.errors import not_executed
from rehearsal.emulator.state import State

_KMS = "nothing is encrypted with KMS"
_DISK = "disks are not limited"
_NETWORK = "jobs and endpoints reach the stand-in alone"
_CAPACITY = "there is no capacity to reserve"
_REGISTRY = "images are mapped, and pulled from nowhere"
_TRIAL = "no trial component is made of the job"
_AGAIN = "a repeated request is a new one"
_LONGEST = "updates are not ended by it"
_SERVERLESS = "cold starts, memory and concurrency are not limited"
_SNS = "nobody is told of asynchronous answers"
_TRAFFIC = "traffic between hosts is not encrypted"
_NO_ERRORS = "there are no internal errors of SageMaker to retry after"
_ONE_PROCESS = "one process stands for all instances of a variant"

_NAME_IT = "name InstanceType and InstanceCount"
_HUB = "there is no hub"
_TOLD = "AWS tells it, requests do not ask for it"
_ACCOUNTS = "there is one account"

REFUSED: Mapping[str, str] = {
    # Training
    "CreateTrainingJobRequest.DebugRuleConfigurations": (
        "managed Debugger rules run in AWS's images"
    ),
    "CreateTrainingJobRequest.ProfilerRuleConfigurations": (
        "managed Profiler rules run in AWS's images"
    ),
    "CreateTrainingJobRequest.ServerlessJobConfig": "models of AWS are not customised here",
    "CreateTrainingJobRequest.MlflowConfig": "nothing is logged to AWS's MLflow",
    "CreateTrainingJobRequest.ModelPackageConfig": "no package is registered of the job",
    "ProfilerConfig.ProfilingParameters": "AWS's profiler does not run: there is no profile",
    "ProfilerConfig.ProfilingIntervalInMilliseconds": (
        "AWS's profiler does not run: nothing is measured"
    ),
    "RemoteDebugConfig.EnableRemoteDebug": "there is no machine to log in to",
    "DataSource.FileSystemDataSource": "only S3DataSource is read",
    "DataSource.DatasetSource": "only S3DataSource is read",
    "S3DataSource.AttributeNames": "augmented manifests are not read",
    "S3DataSource.InstanceGroupNames": "a channel comes to all instance groups",
    "S3DataSource.HubAccessConfig": _HUB,
    "ResourceConfig.InstancePreferences": _NAME_IT,
    "ResourceConfig.SelectedInstanceType": _TOLD,
    "ResourceConfig.SelectedInstanceCount": _TOLD,
    # Tuning
    "CreateHyperParameterTuningJobRequest.TrainingJobDefinitions": "one algorithm is tuned",
    "HyperParameterTrainingJobDefinition.TuningObjective": "one algorithm is tuned",
    "HyperParameterTrainingJobDefinition.HyperParameterRanges": "one algorithm is tuned",
    "ParameterRanges.AutoParameters": "how AWS chooses ranges is not known",
    # Processing
    "ProcessingInput.AppManaged": "an application of AWS's own would fetch it",
    "ProcessingInput.DatasetDefinition": "Athena and Redshift are not asked",
    "ProcessingOutput.FeatureStoreOutput": "there is no feature store",
    "ProcessingOutput.AppManaged": "an application of AWS's own would write it",
    "ProcessingClusterConfig.InstancePreferences": _NAME_IT,
    "ProcessingClusterConfig.SelectedInstanceType": _TOLD,
    "ProcessingClusterConfig.SelectedInstanceCount": _TOLD,
    # Hosting
    "CreateEndpointConfigInput.ExplainerConfig": "nothing is explained by Clarify",
    "CreateEndpointConfigInput.ShadowProductionVariants": "requests are not sent twice",
    "CreateEndpointConfigInput.EnableNetworkIsolation": "isolate the model, in CreateModel",
    "ProductionVariant.InstancePools": _NAME_IT,
    "ProductionVariant.AcceleratorType": "there is no Elastic Inference",
    "ProductionVariant.CoreDumpConfig": "no core dump is written",
    "ProductionVariant.EnableSSMAccess": "there is no machine to log in to",
    "ContainerDefinition.AdditionalModelDataSources": "they are not fetched",
    "ContainerDefinition.InferenceSpecificationName": "the package's first specification is served",
    "S3ModelDataSource.HubAccessConfig": _HUB,
    "S3ModelDataSource.ManifestS3Uri": "manifests of models are not read",
    "S3ModelDataSource.ETag": "objects are not compared with it",
    "S3ModelDataSource.ManifestEtag": "objects are not compared with it",
    "InvokeEndpointInput.EnableExplanations": "nothing is explained by Clarify",
    "InvokeEndpointInput.InferenceComponentName": "there are no inference components",
    "InvokeEndpointInput.SessionId": "requests of a session are not kept together",
    "InvokeEndpointAsyncInput.S3OutputPathExtension": "answers have names of their own",
    "InvokeEndpointAsyncInput.Filename": "answers have names of their own",
    "InvokeEndpointAsyncInput.Body": "the request is read from InputLocation",
    # Transform
    "CreateTransformJobRequest.DataCaptureConfig": "nothing is captured",
    "CreateTransformJobRequest.DataProcessing": "JSONPath filters and joins are not applied",
    # Pipelines
    "PipelineDefinitionS3Location.VersionId": "the newest object is read",
    "StartPipelineExecutionRequest.SelectiveExecutionConfig": "all steps are run",
    "StartPipelineExecutionRequest.PipelineVersionId": "the newest definition is run",
    "StartPipelineExecutionRequest.MlflowExperimentName": "nothing is logged to AWS's MLflow",
    # Registry
    "CreateModelPackageInput.ValidationSpecification": "packages are not validated by jobs",
    "ModelPackageContainerDefinition.AdditionalModelDataSources": "they are not fetched",
    "ModelPackageContainerDefinition.AdditionalS3DataSource": "it is not fetched",
    "UpdateModelPackageInput.AdditionalInferenceSpecificationsToAdd": "they are not added",
    "UpdateModelPackageInput.ModelPackageRegistrationType": "it is not changed",
    "DeleteArtifactRequest.Source": "name ArtifactArn",
    # Lists
    "ListModelPackageGroupsInput.CrossAccountFilterOption": _ACCOUNTS,
    "ListTrainingJobsRequest.TrainingPlanArnEquals": "there are no training plans",
    "SearchRequest.CrossAccountFilterOption": _ACCOUNTS,
    "SearchRequest.VisibilityConditions": "all is visible",
}

INERT: Mapping[str, tuple[Any, ...]] = {
    "ListModelPackageGroupsInput.CrossAccountFilterOption": ("SameAccount",),
    "SearchRequest.CrossAccountFilterOption": ("SameAccount",),
    "CreateTransformJobRequest.DataProcessing": (
        {"JoinSource": "None"},
        {"InputFilter": "$"},
        {"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"},
        {"InputFilter": "$", "JoinSource": "None"},
        {"InputFilter": "$", "OutputFilter": "$"},
    ),
}
"""Values that ask for nothing, beside false and empty ones."""

NO_EFFECT: Mapping[str, str] = {
    # Jobs
    "AlgorithmSpecification.EnableSageMakerMetricsTimeSeries": "metrics go to CloudWatch alone",
    "AlgorithmSpecification.TrainingImageConfig": _REGISTRY,
    "Channel.ShuffleConfig": "objects keep their order",
    "CreateTrainingJobRequest.EnableInterContainerTrafficEncryption": _TRAFFIC,
    "CreateTrainingJobRequest.ExperimentConfig": _TRIAL,
    "CreateTrainingJobRequest.InfraCheckConfig": "there is no hardware to check",
    "CreateTrainingJobRequest.RetryStrategy": _NO_ERRORS,
    "CreateTrainingJobRequest.SessionChainingConfig": "no session has tags",
    "CreateTrainingJobRequest.VpcConfig": _NETWORK,
    "OutputDataConfig.KmsKeyId": _KMS,
    "ProfilerConfig.S3OutputPath": "AWS's profiler does not run: nothing is written there",
    "ResourceConfig.InstancePlacementConfig": _CAPACITY,
    "ResourceConfig.TrainingPlanArn": _CAPACITY,
    "ResourceConfig.VolumeKmsKeyId": _KMS,
    "ResourceConfig.VolumeSizeInGB": _DISK,
    "S3DataSource.ModelAccessConfig": "nobody asks for a licence",
    "StoppingCondition.MaxPendingTimeInSeconds": _CAPACITY,
    "HyperParameterTrainingJobDefinition.EnableInterContainerTrafficEncryption": _TRAFFIC,
    "HyperParameterTrainingJobDefinition.RetryStrategy": _NO_ERRORS,
    "HyperParameterTrainingJobDefinition.VpcConfig": _NETWORK,
    "HyperParameterTuningInstanceConfig.VolumeSizeInGB": _DISK,
    "HyperParameterTuningResourceConfig.AllocationStrategy": "the first instance type is taken",
    "HyperParameterTuningResourceConfig.VolumeKmsKeyId": _KMS,
    "HyperParameterTuningResourceConfig.VolumeSizeInGB": _DISK,
    "CreateProcessingJobRequest.ExperimentConfig": _TRIAL,
    "NetworkConfig.EnableInterContainerTrafficEncryption": _TRAFFIC,
    "NetworkConfig.VpcConfig": _NETWORK,
    "ProcessingClusterConfig.VolumeKmsKeyId": _KMS,
    "ProcessingClusterConfig.VolumeSizeInGB": _DISK,
    "ProcessingOutputConfig.KmsKeyId": _KMS,
    "CreateTransformJobRequest.ExperimentConfig": _TRIAL,
    "TransformOutput.KmsKeyId": _KMS,
    "TransformResources.TransformAmiVersion": "there is no machine image",
    "TransformResources.VolumeKmsKeyId": _KMS,
    # Hosting
    "AsyncInferenceClientConfig.MaxConcurrentInvocationsPerInstance": "all are sent at once",
    "AsyncInferenceOutputConfig.KmsKeyId": _KMS,
    "AsyncInferenceOutputConfig.NotificationConfig": _SNS,
    "BlueGreenUpdatePolicy.MaximumExecutionTimeoutInSeconds": _LONGEST,
    "ContainerDefinition.ContainerMetricsConfig": "no metrics of containers are collected",
    "ContainerDefinition.ImageConfig": _REGISTRY,
    "ContainerDefinition.MultiModelConfig": "models stay loaded",
    "CreateEndpointConfigInput.ExecutionRoleArn": "no permission is evaluated",
    "CreateEndpointConfigInput.KmsKeyId": _KMS,
    "CreateEndpointConfigInput.MetricsConfig": "the usual metrics are written",
    "CreateEndpointConfigInput.VpcConfig": _NETWORK,
    "CreateEndpointInput.DeploymentConfig": "nothing is replaced when an endpoint is created",
    "CreateModelInput.VpcConfig": _NETWORK,
    "DataCaptureConfig.KmsKeyId": _KMS,
    "InvokeEndpointAsyncInput.RequestTTLSeconds": "no request waits",
    "InvokeEndpointInput.PrefixAwareId": _ONE_PROCESS,
    "ProductionVariant.CapacityReservationConfig": _CAPACITY,
    "ProductionVariant.InferenceAmiVersion": "there is no machine image",
    "ProductionVariant.ManagedInstanceScaling": _ONE_PROCESS,
    "ProductionVariant.ModelDataDownloadTimeoutInSeconds": "models are fetched within seconds",
    "ProductionVariant.RoutingConfig": _ONE_PROCESS,
    "ProductionVariant.VariantInstanceProvisionTimeoutInSeconds": _CAPACITY,
    "ProductionVariant.VolumeSizeInGB": _DISK,
    "ProductionVariantServerlessConfig.MaxConcurrency": _SERVERLESS,
    "ProductionVariantServerlessConfig.MemorySizeInMB": _SERVERLESS,
    "ProductionVariantServerlessConfig.ProvisionedConcurrency": _SERVERLESS,
    "RollingUpdatePolicy.MaximumExecutionTimeoutInSeconds": _LONGEST,
    "RollingUpdatePolicy.RollbackMaximumBatchSize": "a rollback moves all traffic at once",
    "S3ModelDataSource.ModelAccessConfig": "nobody asks for a licence",
    # Registry and pipelines
    "CreateModelPackageInput.CertifyForMarketplace": "nothing goes to the marketplace",
    "CreateModelPackageInput.ClientToken": _AGAIN,
    "CreateModelPackageInput.ManagedStorageType": "artifacts stay where they are",
    "CreateModelPackageGroupInput.ManagedConfiguration": "artifacts stay where they are",
    "DescribeModelPackageInput.IncludedData": "all is shown",
    "ModelPackageSecurityConfig.KmsKeyId": _KMS,
    "UpdateModelPackageInput.ClientToken": _AGAIN,
    "CreatePipelineRequest.ClientRequestToken": _AGAIN,
    "StartPipelineExecutionRequest.ClientRequestToken": _AGAIN,
    "StopPipelineExecutionRequest.ClientRequestToken": _AGAIN,
}

_UNTOLD = ("ClientRequestToken", "ClientToken", "VolumeSizeInGB")
"""Without effect, and in nearly every request: SDKs add them, the report has a word for all."""

DONE: Mapping[str, str] = {
    "ActionSource": "SourceUri SourceType SourceId",
    "AddAssociationRequest": "SourceArn DestinationArn AssociationType",
    "AddTagsInput": "ResourceArn Tags",
    "AdditionalInferenceSpecificationDefinition": (
        "Name Description Containers SupportedTransformInstanceTypes "
        "SupportedRealtimeInferenceInstanceTypes SupportedContentTypes "
        "SupportedResponseMIMETypes"
    ),
    "Alarm": "AlarmName",
    "AlgorithmSpecification": (
        "TrainingImage AlgorithmName TrainingInputMode MetricDefinitions ContainerEntrypoint "
        "ContainerArguments"
    ),
    "AppSpecification": "ImageUri ContainerEntrypoint ContainerArguments",
    "ArtifactSource": "SourceUri SourceTypes",
    "ArtifactSourceType": "SourceIdType Value",
    "AsyncInferenceClientConfig": "",
    "AsyncInferenceConfig": "ClientConfig OutputConfig",
    "AsyncInferenceOutputConfig": "S3OutputPath S3FailurePath",
    "AutoRollbackConfig": "Alarms",
    "Autotune": "Mode",
    "BaseModel": "HubContentName HubContentVersion RecipeName",
    "BestObjectiveNotImproving": "MaxNumberOfTrainingJobsNotImproving",
    "Bias": "Report PreTrainingReport PostTrainingReport",
    "BlueGreenUpdatePolicy": "TrafficRoutingConfiguration TerminationWaitInSeconds",
    "CapacitySize": "Type Value",
    "CaptureContentTypeHeader": "CsvContentTypes JsonContentTypes",
    "CaptureOption": "CaptureMode",
    "CategoricalParameterRange": "Name Values",
    "Channel": "ChannelName DataSource ContentType CompressionType RecordWrapperType InputMode",
    "CheckpointConfig": "S3Uri LocalPath",
    "CollectionConfiguration": "CollectionName CollectionParameters",
    "ContainerDefinition": (
        "ContainerHostname Image Mode ModelDataUrl ModelDataSource Environment ModelPackageName"
    ),
    "ContextSource": "SourceUri SourceType SourceId",
    "ContinuousParameterRange": "Name MinValue MaxValue ScalingType",
    "ConvergenceDetected": "CompleteOnConvergence",
    "CreateActionRequest": (
        "ActionName Source ActionType Description Status Properties MetadataProperties Tags"
    ),
    "CreateArtifactRequest": "ArtifactName Source ArtifactType Properties MetadataProperties Tags",
    "CreateContextRequest": "ContextName Source ContextType Description Properties Tags",
    "CreateEndpointConfigInput": (
        "EndpointConfigName ProductionVariants DataCaptureConfig Tags AsyncInferenceConfig"
    ),
    "CreateEndpointInput": "EndpointName EndpointConfigName Tags",
    "CreateHyperParameterTuningJobRequest": (
        "HyperParameterTuningJobName HyperParameterTuningJobConfig TrainingJobDefinition "
        "WarmStartConfig Tags Autotune"
    ),
    "CreateModelInput": (
        "ModelName PrimaryContainer Containers InferenceExecutionConfig ExecutionRoleArn Tags "
        "EnableNetworkIsolation"
    ),
    "CreateModelPackageGroupInput": "ModelPackageGroupName ModelPackageGroupDescription Tags",
    "CreateModelPackageInput": (
        "ModelPackageName ModelPackageGroupName ModelPackageDescription "
        "ModelPackageRegistrationType InferenceSpecification SourceAlgorithmSpecification Tags "
        "ModelApprovalStatus MetadataProperties ModelMetrics Domain Task SamplePayloadUrl "
        "CustomerMetadataProperties DriftCheckBaselines AdditionalInferenceSpecifications "
        "SkipModelValidation SourceUri SecurityConfig ModelCard ModelLifeCycle"
    ),
    "CreatePipelineRequest": (
        "PipelineName PipelineDisplayName PipelineDefinition PipelineDefinitionS3Location "
        "PipelineDescription RoleArn Tags ParallelismConfiguration"
    ),
    "CreateProcessingJobRequest": (
        "ProcessingInputs ProcessingOutputConfig ProcessingJobName ProcessingResources "
        "StoppingCondition AppSpecification Environment NetworkConfig RoleArn Tags"
    ),
    "CreateTrainingJobRequest": (
        "TrainingJobName HyperParameters AlgorithmSpecification RoleArn InputDataConfig "
        "OutputDataConfig ResourceConfig StoppingCondition Tags EnableNetworkIsolation "
        "EnableManagedSpotTraining CheckpointConfig DebugHookConfig TensorBoardOutputConfig "
        "ProfilerConfig Environment RemoteDebugConfig"
    ),
    "CreateTransformJobRequest": (
        "TransformJobName ModelName MaxConcurrentTransforms ModelClientConfig MaxPayloadInMB "
        "BatchStrategy Environment TransformInput TransformOutput TransformResources Tags"
    ),
    "DataCaptureConfig": (
        "EnableCapture InitialSamplingPercentage DestinationS3Uri CaptureOptions "
        "CaptureContentTypeHeader"
    ),
    "DataSource": "S3DataSource",
    "DebugHookConfig": "LocalPath S3OutputPath HookParameters CollectionConfigurations",
    "DeleteActionRequest": "ActionName",
    "DeleteArtifactRequest": "ArtifactArn",
    "DeleteAssociationRequest": "SourceArn DestinationArn",
    "DeleteContextRequest": "ContextName",
    "DeleteEndpointConfigInput": "EndpointConfigName",
    "DeleteEndpointInput": "EndpointName",
    "DeleteHyperParameterTuningJobRequest": "HyperParameterTuningJobName",
    "DeleteModelInput": "ModelName",
    "DeleteModelPackageGroupInput": "ModelPackageGroupName",
    "DeleteModelPackageInput": "ModelPackageName",
    "DeleteTagsInput": "ResourceArn TagKeys",
    "DeploymentConfig": "BlueGreenUpdatePolicy RollingUpdatePolicy AutoRollbackConfiguration",
    "DescribeActionRequest": "ActionName",
    "DescribeArtifactRequest": "ArtifactArn",
    "DescribeContextRequest": "ContextName",
    "DescribeEndpointConfigInput": "EndpointConfigName",
    "DescribeEndpointInput": "EndpointName",
    "DescribeHyperParameterTuningJobRequest": "HyperParameterTuningJobName",
    "DescribeModelInput": "ModelName",
    "DescribeModelPackageGroupInput": "ModelPackageGroupName",
    "DescribeModelPackageInput": "ModelPackageName",
    "DescribePipelineDefinitionForExecutionRequest": "PipelineExecutionArn",
    "DescribePipelineExecutionRequest": "PipelineExecutionArn",
    "DescribeProcessingJobRequest": "ProcessingJobName",
    "DescribeTrainingJobRequest": "TrainingJobName",
    "DescribeTransformJobRequest": "TransformJobName",
    "DesiredWeightAndCapacity": (
        "VariantName DesiredWeight DesiredInstanceCount ServerlessUpdateConfig"
    ),
    "DriftCheckBaselines": "Bias Explainability ModelQuality ModelDataQuality",
    "DriftCheckBias": "ConfigFile PreTrainingConstraints PostTrainingConstraints",
    "DriftCheckExplainability": "Constraints ConfigFile",
    "DriftCheckModelDataQuality": "Statistics Constraints",
    "DriftCheckModelQuality": "Statistics Constraints",
    "Explainability": "Report",
    "FileSource": "ContentType ContentDigest S3Uri",
    "Filter": "Name Operator Value",
    "HyperParameterAlgorithmSpecification": (
        "TrainingImage TrainingInputMode AlgorithmName MetricDefinitions"
    ),
    "HyperParameterTrainingJobDefinition": (
        "DefinitionName StaticHyperParameters AlgorithmSpecification RoleArn InputDataConfig "
        "OutputDataConfig ResourceConfig HyperParameterTuningResourceConfig StoppingCondition "
        "EnableNetworkIsolation EnableManagedSpotTraining CheckpointConfig Environment"
    ),
    "HyperParameterTuningInstanceConfig": "InstanceType InstanceCount",
    "HyperParameterTuningJobConfig": (
        "Strategy StrategyConfig HyperParameterTuningJobObjective ResourceLimits "
        "ParameterRanges TrainingJobEarlyStoppingType TuningJobCompletionCriteria RandomSeed"
    ),
    "HyperParameterTuningJobObjective": "Type MetricName",
    "HyperParameterTuningJobStrategyConfig": "HyperbandStrategyConfig",
    "HyperParameterTuningJobWarmStartConfig": "ParentHyperParameterTuningJobs WarmStartType",
    "HyperParameterTuningResourceConfig": "InstanceType InstanceCount InstanceConfigs",
    "HyperbandStrategyConfig": "MinResource MaxResource",
    "InferenceExecutionConfig": "Mode",
    "InferenceSpecification": (
        "Containers SupportedTransformInstanceTypes SupportedRealtimeInferenceInstanceTypes "
        "SupportedContentTypes SupportedResponseMIMETypes"
    ),
    "InstanceGroup": "InstanceType InstanceCount InstanceGroupName",
    "IntegerParameterRange": "Name MinValue MaxValue ScalingType",
    "InvokeEndpointAsyncInput": (
        "EndpointName ContentType Accept CustomAttributes InferenceId InputLocation "
        "InvocationTimeoutSeconds"
    ),
    "InvokeEndpointInput": (
        "EndpointName Body ContentType Accept CustomAttributes TargetModel TargetVariant "
        "TargetContainerHostname InferenceId"
    ),
    "ListActionsRequest": (
        "SourceUri ActionType CreatedAfter CreatedBefore SortBy SortOrder NextToken MaxResults"
    ),
    "ListArtifactsRequest": (
        "SourceUri ArtifactType CreatedAfter CreatedBefore SortBy SortOrder NextToken MaxResults"
    ),
    "ListAssociationsRequest": (
        "SourceArn DestinationArn SourceType DestinationType AssociationType CreatedAfter "
        "CreatedBefore SortBy SortOrder NextToken MaxResults"
    ),
    "ListContextsRequest": (
        "SourceUri ContextType CreatedAfter CreatedBefore SortBy SortOrder NextToken MaxResults"
    ),
    "ListEndpointConfigsInput": (
        "SortBy SortOrder NextToken MaxResults NameContains CreationTimeBefore CreationTimeAfter"
    ),
    "ListEndpointsInput": (
        "SortBy SortOrder NextToken MaxResults NameContains CreationTimeBefore "
        "CreationTimeAfter LastModifiedTimeBefore LastModifiedTimeAfter StatusEquals"
    ),
    "ListHyperParameterTuningJobsRequest": (
        "NextToken MaxResults SortBy SortOrder NameContains CreationTimeAfter "
        "CreationTimeBefore LastModifiedTimeAfter LastModifiedTimeBefore StatusEquals"
    ),
    "ListModelPackageGroupsInput": (
        "CreationTimeAfter CreationTimeBefore MaxResults NameContains NextToken SortBy SortOrder"
    ),
    "ListModelPackagesInput": (
        "CreationTimeAfter CreationTimeBefore MaxResults NameContains ModelApprovalStatus "
        "ModelPackageGroupName ModelPackageType NextToken SortBy SortOrder"
    ),
    "ListModelsInput": (
        "SortBy SortOrder NextToken MaxResults NameContains CreationTimeBefore CreationTimeAfter"
    ),
    "ListPipelineExecutionStepsRequest": "PipelineExecutionArn NextToken MaxResults SortOrder",
    "ListPipelineExecutionsRequest": (
        "PipelineName CreatedAfter CreatedBefore SortBy SortOrder NextToken MaxResults"
    ),
    "ListProcessingJobsRequest": (
        "CreationTimeAfter CreationTimeBefore LastModifiedTimeAfter LastModifiedTimeBefore "
        "NameContains StatusEquals SortBy SortOrder NextToken MaxResults"
    ),
    "ListTagsInput": "ResourceArn NextToken MaxResults",
    "ListTrainingJobsForHyperParameterTuningJobRequest": (
        "HyperParameterTuningJobName NextToken MaxResults StatusEquals SortBy SortOrder"
    ),
    "ListTrainingJobsRequest": (
        "NextToken MaxResults CreationTimeAfter CreationTimeBefore LastModifiedTimeAfter "
        "LastModifiedTimeBefore NameContains StatusEquals SortBy SortOrder WarmPoolStatusEquals"
    ),
    "ListTransformJobsRequest": (
        "CreationTimeAfter CreationTimeBefore LastModifiedTimeAfter LastModifiedTimeBefore "
        "NameContains StatusEquals SortBy SortOrder NextToken MaxResults"
    ),
    "MetadataProperties": "CommitId Repository GeneratedBy ProjectId",
    "MetricDefinition": "Name Regex",
    "MetricsSource": "ContentType ContentDigest S3Uri",
    "ModelClientConfig": "InvocationsTimeoutInSeconds InvocationsMaxRetries",
    "ModelDataQuality": "Statistics Constraints",
    "ModelDataSource": "S3DataSource",
    "ModelInput": "DataInputConfig",
    "ModelLifeCycle": "Stage StageStatus StageDescription",
    "ModelMetrics": "ModelQuality ModelDataQuality Bias Explainability",
    "ModelPackageContainerDefinition": (
        "ContainerHostname Image ImageDigest ModelDataUrl ModelDataSource ProductId Environment "
        "ModelInput Framework FrameworkVersion NearestModelName ModelDataETag IsCheckpoint "
        "BaseModel"
    ),
    "ModelPackageModelCard": "ModelCardContent ModelCardStatus",
    "ModelPackageSecurityConfig": "",
    "ModelQuality": "Statistics Constraints",
    "NestedFilters": "NestedPropertyName Filters",
    "NetworkConfig": "EnableNetworkIsolation",
    "OutputDataConfig": "S3OutputPath CompressionType",
    "ParallelismConfiguration": "MaxParallelExecutionSteps",
    "Parameter": "Name Value",
    "ParameterRanges": (
        "IntegerParameterRanges ContinuousParameterRanges CategoricalParameterRanges"
    ),
    "ParentHyperParameterTuningJob": "HyperParameterTuningJobName",
    "PipelineDefinitionS3Location": "Bucket ObjectKey",
    "ProcessingClusterConfig": "InstanceCount InstanceType",
    "ProcessingInput": "InputName S3Input",
    "ProcessingOutput": "OutputName S3Output",
    "ProcessingOutputConfig": "Outputs",
    "ProcessingResources": "ClusterConfig",
    "ProcessingS3Input": (
        "S3Uri LocalPath S3DataType S3InputMode S3DataDistributionType S3CompressionType"
    ),
    "ProcessingS3Output": "S3Uri LocalPath S3UploadMode",
    "ProcessingStoppingCondition": "MaxRuntimeInSeconds",
    "ProductionVariant": (
        "VariantName ModelName InitialInstanceCount InstanceType InitialVariantWeight "
        "ServerlessConfig ContainerStartupHealthCheckTimeoutInSeconds"
    ),
    "ProductionVariantServerlessConfig": "",
    "ProductionVariantServerlessUpdateConfig": "MaxConcurrency ProvisionedConcurrency",
    "ProfilerConfig": "DisableProfiler",
    "RemoteDebugConfig": "",
    "ResourceConfig": "InstanceType InstanceCount KeepAlivePeriodInSeconds InstanceGroups",
    "ResourceLimits": "MaxNumberOfTrainingJobs MaxParallelTrainingJobs MaxRuntimeInSeconds",
    "RollingUpdatePolicy": "MaximumBatchSize WaitIntervalInSeconds",
    "S3DataSource": "S3DataType S3Uri S3DataDistributionType",
    "S3ModelDataSource": "S3Uri S3DataType CompressionType",
    "SearchExpression": "Filters NestedFilters SubExpressions Operator",
    "SearchRequest": "Resource SearchExpression SortBy SortOrder NextToken MaxResults",
    "SourceAlgorithm": "ModelDataUrl ModelDataSource ModelDataETag AlgorithmName",
    "SourceAlgorithmSpecification": "SourceAlgorithms",
    "StartPipelineExecutionRequest": (
        "PipelineName PipelineExecutionDisplayName PipelineParameters "
        "PipelineExecutionDescription ParallelismConfiguration"
    ),
    "StopHyperParameterTuningJobRequest": "HyperParameterTuningJobName",
    "StopPipelineExecutionRequest": "PipelineExecutionArn",
    "StopProcessingJobRequest": "ProcessingJobName",
    "StopTrainingJobRequest": "TrainingJobName",
    "StopTransformJobRequest": "TransformJobName",
    "StoppingCondition": "MaxRuntimeInSeconds MaxWaitTimeInSeconds",
    "Tag": "Key Value",
    "TensorBoardOutputConfig": "LocalPath S3OutputPath",
    "TrafficRoutingConfig": "Type WaitIntervalInSeconds CanarySize LinearStepSize",
    "TransformDataSource": "S3DataSource",
    "TransformInput": "DataSource ContentType CompressionType SplitType",
    "TransformOutput": "S3OutputPath Accept AssembleWith",
    "TransformResources": "InstanceType InstanceCount",
    "TransformS3DataSource": "S3DataType S3Uri",
    "TuningJobCompletionCriteria": (
        "TargetObjectiveMetricValue BestObjectiveNotImproving ConvergenceDetected"
    ),
    "UpdateActionRequest": "ActionName Description Status Properties PropertiesToRemove",
    "UpdateArtifactRequest": "ArtifactArn ArtifactName Properties PropertiesToRemove",
    "UpdateContextRequest": "ContextName Description Properties PropertiesToRemove",
    "UpdateEndpointInput": (
        "EndpointName EndpointConfigName RetainAllVariantProperties "
        "ExcludeRetainedVariantProperties DeploymentConfig RetainDeploymentConfig"
    ),
    "UpdateEndpointWeightsAndCapacitiesInput": "EndpointName DesiredWeightsAndCapacities",
    "UpdateModelPackageInput": (
        "ModelPackageArn ModelApprovalStatus ApprovalDescription CustomerMetadataProperties "
        "CustomerMetadataPropertiesToRemove InferenceSpecification SourceUri ModelCard "
        "ModelLifeCycle"
    ),
    "UpdatePipelineRequest": (
        "PipelineName PipelineDisplayName PipelineDefinition PipelineDefinitionS3Location "
        "PipelineDescription RoleArn ParallelismConfiguration"
    ),
    "VariantProperty": "VariantPropertyType",
}


@cache
def shape_of(operation: str, *, service: str = "sagemaker") -> Any:  # noqa: ANN401
    """The input of an operation, as botocore models it; None where it has none."""
    import botocore.session

    model = botocore.session.Session().get_service_model(service)
    return model.operation_model(operation).input_shape


def check_members(operation: str, request: Mapping[str, Any], *, state: State) -> None:
    """Refuse what would be missing from the result; note what has no effect here.

    Raises:
        AwsError: NotExecutedInRehearsal, with all that is not executed.
    """
    check_given(shape_of(operation), request, operation=operation, state=state)


def check_given(
    shape: Any,  # noqa: ANN401  botocore has no types here
    request: Mapping[str, Any],
    *,
    operation: str,
    state: State,
) -> None:
    """`check_members` of a request that has another form than JSON.

    Raises:
        AwsError: NotExecutedInRehearsal, with all that is not executed.
    """
    reasons = []
    for member, path in _given(shape, request, path=""):
        if member in REFUSED:
            reasons.append(f"{path}: {REFUSED[member]}")
        elif member in NO_EFFECT and not path.endswith(_UNTOLD):
            state.log.without_effect(f"{path.rpartition('.')[2]} ({NO_EFFECT[member]})")
        elif member not in NO_EFFECT and not _is_done(member):
            reasons.append(f"{path}: AWS has it since the rehearsal was written")
    if reasons:
        raise not_executed(f"This {operation}", why="; ".join(reasons))


def _is_done(member: str) -> bool:
    shape, name = member.split(".")
    return name in DONE.get(shape, "").split()


def _given(shape: Any, value: Any, *, path: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Members that a request gives and that ask for something: "Shape.Member", and its path."""
    if shape is None:
        return
    if shape.type_name == "structure" and isinstance(value, Mapping):
        for name, member in value.items():
            key, place = f"{shape.name}.{name}", f"{path}.{name}".removeprefix(".")
            if not member or member in INERT.get(key, ()) or name not in shape.members:
                continue
            yield key, place
            if key not in REFUSED and key not in NO_EFFECT:
                yield from _given(shape.members[name], member, path=place)
    elif shape.type_name == "list" and isinstance(value, list | tuple):
        for number, member in enumerate(value):
            yield from _given(shape.member, member, path=f"{path}[{number}]")
    elif shape.type_name == "map" and isinstance(value, Mapping):
        for member in value.values():
            yield from _given(shape.value, member, path=path)
