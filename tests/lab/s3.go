package lab

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Region is the region that store and cloud are in.
const Region = "us-east-1"

// S3 is a client of the store with the given key.
func (s *Store) S3(key Key) *s3.Client { return newS3(s.Endpoint, key) }

// S3 is a client of the cloud with the given key.
func (c *Cloud) S3(key Key) *s3.Client { return newS3(c.Endpoint, key) }

func newS3(endpoint string, key Key) *s3.Client {
	return s3.New(s3.Options{
		Region:           Region,
		BaseEndpoint:     aws.String(endpoint),
		UsePathStyle:     true,
		RetryMaxAttempts: 1, // a refusal is an answer
		Credentials:      credentials.NewStaticCredentialsProvider(key.Access, key.Secret, key.Token),
		// The stand-in for AWS can't check the signature of a body that carries its checksum at its end.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
	})
}

// Put writes a small object.
func Put(ctx context.Context, client *s3.Client, bucket, object string) error {
	_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(object), Body: strings.NewReader("content")})
	return err
}

// Get reads an object.
func Get(ctx context.Context, client *s3.Client, bucket, object string) error {
	answer, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(object)})
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// Delete deletes an object.
func Delete(ctx context.Context, client *s3.Client, bucket, object string) error {
	_, err := client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String(bucket), Key: aws.String(object)})
	return err
}

// List lists a bucket.
func List(ctx context.Context, client *s3.Client, bucket string) error {
	_, err := client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String(bucket)})
	return err
}

func makeBuckets(ctx context.Context, client *s3.Client) error {
	for _, bucket := range Buckets {
		if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket)}); err != nil {
			return fmt.Errorf("making bucket %s: %w", bucket, err)
		}
	}
	return nil
}
