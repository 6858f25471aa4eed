// Stands in for a cloud SDK of flannel that the module proxy may not serve.
module github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/vpc

go 1.26.0
